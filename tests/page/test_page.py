"""The page holds what the runs hold, stands alone, and executes nothing of what a model wrote."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from cegppo_jax.page import overview
from cegppo_jax.page.arms import Arm
from cegppo_jax.page.charts import SECTIONS, TOTALS
from cegppo_jax.page.completions import browse, spread_over_steps
from cegppo_jax.page.figures import figures_of
from cegppo_jax.page.page import write_page
from cegppo_jax.reporting.metrics import METRICS
from cegppo_jax.reporting.run_log import RunLog

ALL = [chart for section in SECTIONS for chart in section.charts]
CHARTS = {chart.title: chart for chart in ALL}
HOSTILE = "</div><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


def sample(step=1, **changes):
    """A line of an older version: without readings of tokens."""
    return {
        "phase": "rl",
        "step": step,
        "id": "p",
        "problem": "1+1",
        "answer": "2",
        "sample": 0,
        "completion": "2",
        "outcome": "correct",
        "read": "2",
        "rule": None,
        "reward": 1.0,
        "tokens": 2,
        "stop_reason": "eos",
        **changes,
    }


def read(text, tokens=("a", "b")):
    columns = ("token_logprobs", "token_entropies", "token_log_ratios")
    readings = {
        name: [-0.1 if name != "token_entropies" else 0.5] * len(tokens) for name in columns
    }
    return sample(completion=text, token_texts=list(tokens), advantage=0.5, **readings)


class Page(HTMLParser):
    """What a browser would make of a page: scripts, sources, text of each completion."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.scripts, self.links, self.tags = 0, [], []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.links += [attrs[name] for name in ("src", "href") if name in attrs]

    def handle_data(self, data):
        if not self.tags or self.tags[-1] not in ("script", "style"):
            self.text += data


def written(made_up_runs, tmp_path, **options):
    out = tmp_path / "report.html"
    write_page(made_up_runs, out, **options)
    return out.read_text()


def test_every_metric_of_a_chart_exists():
    names = [series.name for chart in CHARTS.values() for series in chart.series]
    assert [name for name in (*names, *TOTALS.values()) if name not in METRICS] == []
    stacks = {title for title, chart in CHARTS.items() if chart.kind == "stack"}
    assert {*TOTALS} == stacks
    assert len(CHARTS) == len(ALL)


def test_a_whole_run_shows_every_chart(finished_run, tmp_path):
    page = written({"tiny": [finished_run[0]]}, tmp_path)
    shown = set(re.findall(r"<figcaption><b>([^<]+)</b>", page))
    assert shown == {*CHARTS}
    assert page.count('<figure class="chart">') == page.count("Plotly.newPlot(") >= 18
    read_page = Page(page)
    assert {link for link in read_page.links if not link.startswith("#")} == set()
    for words in ("held-out accuracy", "problems.task", "chained_arithmetic", "cpu: cpu"):
        assert words in read_page.text, words
    cards = page.count('<article class="completion"')
    assert cards == len(RunLog(finished_run[0]).samples)
    assert page.count('<div class="tokens by-entropy">') == cards


def test_text_of_models_and_users_stays_text(made_up, tmp_path):
    samples = [
        sample(completion=HOSTILE, problem=HOSTILE, read=HOSTILE, answer=HOSTILE, id=HOSTILE),
        read(HOSTILE, [HOSTILE, "\ud800", "b"]),
    ]
    run = made_up({"reward/mean": 0.5}, samples=samples, **{"loss/surrogate": HOSTILE})
    plain, hostile = (
        Page(written({name: [run]}, tmp_path, title=name)) for name in ("arm", HOSTILE)
    )
    assert plain.tags.count("script") == hostile.tags.count("script")
    assert "img" not in hostile.tags
    assert hostile.text.count(HOSTILE) >= 8


def test_the_cdn_makes_a_small_page(made_up, tmp_path):
    run = made_up({"reward/mean": 0.5})
    whole = len(written({"a": [run]}, tmp_path))
    page = written({"a": [run]}, tmp_path, cdn=True)
    assert whole > 4e6
    assert len(page) < 1e5
    assert any("cdn.plot.ly" in link for link in Page(page).links)


def test_seeds_are_a_mean_and_a_band(made_up):
    runs = [
        RunLog(made_up({"reward/mean": float(seed)}, f"s{seed}", seed=seed)) for seed in range(3)
    ]
    [(name, figure)] = figures_of(CHARTS["Reward"], [Arm("arm", tuple(runs))])
    band, mean = figure.data
    assert name == ""
    assert (min(band.y), max(band.y), {*mean.y}) == (0.0, 2.0, {1.0})


def test_held_out_accuracy_has_its_interval(made_up):
    metrics = {"evaluation/accuracy": 0.5, "evaluation/accuracy_low": 0.4}
    run = made_up(metrics | {"evaluation/accuracy_high": 0.7})
    [(_, figure)] = figures_of(CHARTS["Accuracy"], [Arm("arm", (RunLog(run),))])
    assert {*figure.data[0].error_y.array} == {0.2}
    assert {*figure.data[0].error_y.arrayminus} == {0.1}


def test_arms_have_a_stack_each_and_share_lines(made_up):
    metrics = {"budget/pa_hp": -1.0, "budget/mean": -1.0, "reward/mean": 0.5}
    arms = [Arm(name, (RunLog(made_up(metrics, name)),)) for name in ("one", "two")]
    assert [name for name, _ in figures_of(CHARTS["By quadrant"], arms)] == ["one", "two"]
    assert len(figures_of(CHARTS["Reward"], arms)) == 1
    assert figures_of(CHARTS["Warm start: loss"], arms) == []


def test_only_limits_that_count_are_drawn(made_up):
    def lines(**settings):
        run = made_up({"policy/entropy": 0.5}, f"run{len(settings)}", **settings)
        [(_, figure)] = figures_of(CHARTS["Policy entropy"], [Arm("arm", (RunLog(run),))])
        return sorted(shape.y0 for shape in figure.layout.shapes)

    assert lines() == []
    assert lines(**{"steering/controller/enabled": True}) == [0.1, 0.12]


def test_a_page_of_long_runs_shows_completions_of_steps_spread_evenly():
    samples = [sample(step, tokens=10) for step in range(10, 110, 10) for _ in range(4)]
    assert len(spread_over_steps(samples, 40, 400)) == 40
    assert sorted({one["step"] for one in spread_over_steps(samples, 16, 400)}) == [10, 40, 70, 100]
    assert {one["step"] for one in spread_over_steps(samples, 40, 50)} == {100}
    assert len(spread_over_steps(samples, 2, 400)) == 2
    assert len(spread_over_steps(samples, 40, 25)) == 2
    assert spread_over_steps([], 4, 4) == []


def test_lines_without_readings_are_plain_text(made_up, tmp_path):
    run = made_up({}, samples=[sample(completion="plain words")])
    assert not browse([Arm("a", (RunLog(run),))]).coloured
    page = written({"a": [run]}, tmp_path)
    assert '<div class="tokens">plain words</div>' in page
    assert 'name="by"' not in page


def test_a_page_says_what_its_runs_share(made_up):
    start = {"git": "0123456789abcdef+changes", "devices": ["cpu: cpu"] * 2}
    folders = [
        made_up({}, "one"),
        made_up({}, "two", **{"seed": 3, "loss/surrogate": "ppo_clip", "model/pretrained": ""}),
    ]
    (folders[0] / "versions.json").write_text(json.dumps([start]))
    arms = [Arm(folder.name, (RunLog(folder),)) for folder in folders]
    assert overview.facts(arms) == [
        "a new decoder of 2 layers, width 64",
        "chained_arithmetic",
        "seeds 0, 3",
        "commit 0123456789+changes",
    ]
    assert overview.facts(arms[1:])[0] == "ppo_clip"
    assert overview.machines(arms).rows[0][2] == "2 x cpu: cpu"
    assert overview.settings_apart(arms).rows == [
        ["loss.surrogate", "ce_gppo", "ppo_clip"],
        ["seed", "0", "3"],
    ]


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "cegppo_jax.report", *map(str, arguments)],
        capture_output=True,
        text=True,
    )


def test_the_command_writes_the_page_and_prints_the_doctor(made_up, tmp_path):
    metrics = {"packing/efficiency": 0.4, "reward/mean": 0.5}
    runs = [made_up(metrics, "one"), made_up(metrics, "two", **{"loss/beta_low": 0.0})]
    out = tmp_path / "pages" / "report.html"
    done = command(*runs, f"--out={out}", "--cdn")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("only 40 % of the packed rows") == 2
    assert "beta_low=0:" in done.stdout
    assert f"wrote {out}" in done.stdout
    assert json.dumps("beta_low=0")[1:-1] in out.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no run"),
        pytest.param(["{tmp}/nothing"], "holds no run", marks=pytest.mark.slow),
        (["{tmp}/run", "{tmp}/run"], "more than once"),
        pytest.param(["{tmp}/run", "--out={tmp}"], "is a folder", marks=pytest.mark.slow),
        pytest.param(["gs://bucket/run"], "is a URL", marks=pytest.mark.slow),
    ],
)
def test_bad_input_ends_with_one_line(made_up, tmp_path, arguments, message):
    made_up({})
    done = command(*(one.format(tmp=tmp_path) for one in arguments))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"none of {BROWSERS} is installed")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_a_browser_draws_every_plot_and_reports_no_error(
    browser, finished_run, made_up, tmp_path, width, height
):
    """Two arms, one with a hostile completion. Nothing overflows on a phone; the filter filters."""
    hostile = made_up({"reward/mean": 0.5}, samples=[sample(completion=HOSTILE), read(HOSTILE)])
    out = tmp_path / "report.html"
    write_page({"tiny": [finished_run[0]], HOSTILE: [hostile]}, out)
    page, errors = browser.new_page(viewport={"width": width, "height": height}), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda one: errors.append(one.text) if one.type == "error" else None)
    page.set_default_timeout(120_000)
    page.goto(out.as_uri())
    page.wait_for_function(
        "[...document.querySelectorAll('.chart')].every((one) => one.querySelector('.trace path'))"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("window.hacked") is None
    visible = "[...document.querySelectorAll('.completion')].filter((one) => !one.hidden).length"
    page.fill("[name=search]", "window.hacked")
    assert page.evaluate(visible) == 2
    page.select_option("[name=outcome]", "wrong")
    assert page.evaluate(visible) == 0
    page.select_option("[name=by]", "quadrant")
    assert page.locator("#cards .by-quadrant").count() == page.locator("#cards .tokens").count()
    page.emulate_media(media="print")
    assert not page.locator("#filter").is_visible()
    assert errors == []
