"""README.md and the pages behind it against the code: links, settings, messages, and every shell
block, which is tried without being run (what the blocks do: test_page_blocks.py).
"""

import ast
import re
from pathlib import Path

import page_blocks
import pytest
from ml_collections import ConfigDict

import cegppo_jax
from cegppo_jax.console.table import COMMANDS
from cegppo_jax.losses.surrogates import SURROGATES
from configs import base, presets

ROOT = Path(cegppo_jax.__file__).parent.parent
PAGES = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in page_blocks.pages(ROOT)}
COMING_FROM = [name for name in PAGES if "/from_" in name]


def cells(line):
    """The cells of a table's row; a | inside code is no border."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def tables(text):
    """The rows [n][cells] of each table of a page, without its heading."""
    found = re.findall(r"(?m)(?:^\|.*\n)+", text + "\n")
    return [[cells(line) for line in table.splitlines()[2:]] for table in found]


def settings():
    """Every setting and section of configs/base.py by its dotted name."""

    def named(config, prefix=""):
        for name, value in config.items():
            yield f"{prefix}{name}"
            if isinstance(value, ConfigDict):
                yield from named(value, f"{prefix}{name}.")

    return set(named(base.get_config()))


SETTINGS = settings()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings_that_exist(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if re.match(r"https?://|\.\./\.\./actions/", target):
            continue  # the second: of the repository's page on GitHub
        name, _, heading = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), target
        if heading:
            titles = re.findall(r"(?m)^#+ (.+)$", file.read_text("utf-8"))
            assert heading in [re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles]


@pytest.mark.parametrize("page", PAGES)
def test_settings_that_a_page_names_exist(page):
    """Dotted names in code whose first part is a section of the config: `loss.beta_low`."""
    text = re.sub(r"(?s)```.*?```", "", PAGES[page])
    if page in COMING_FROM:  # the other framework's names are in the first column
        text = "\n".join("|".join(cells(line)[1:]) for line in text.splitlines() if "|" in line)
    sections = "|".join(name for name in SETTINGS if "." not in name)
    for name in re.findall(rf"`(?:config\.)?((?:{sections})\.[a-z_.0-9]+)(?:`| = )", text):
        assert name in SETTINGS, name


@pytest.mark.parametrize("page", COMING_FROM)
def test_every_option_of_another_framework_has_a_setting_or_a_remark(page):
    options, losses = tables(PAGES[page])[:2]
    assert len(options) > 25
    for _, ours, remark in options:
        names = re.findall(r"`([^`]+)`", ours)
        assert names or remark
        assert set(names) <= SETTINGS | {"--workdir"}
    named = {name for row in losses for name in re.findall(r"`(\w+)`", row[1])}
    assert named - {"epsilon_high"} <= SURROGATES.keys()
    assert len(named) >= 5


@pytest.mark.parametrize("page", PAGES)
def test_names_in_files_exist(page):
    """`file.py: name`, of the package or of its tests."""
    for file, name in re.findall(r"`([\w/]+\.py): (\w+)`", PAGES[page]):
        folders = ((ROOT / page).parent, ROOT, ROOT / "cegppo_jax", ROOT / "tests")
        [path, *_] = [folder / file for folder in folders if (folder / file).exists()]
        source = path.read_text("utf-8")
        assert re.search(rf"(?m)^(?:(?:def|class) {name}\b|{name}\s*[:=])", source), name


@pytest.mark.parametrize("page", PAGES)
def test_what_is_imported_by_hand_exists(page):
    assert set(re.findall(r"\bcg\.(\w+)", PAGES[page])) <= set(cegppo_jax.__all__)


def texts(source):
    """The texts of a module, docstrings too, with … for what is put into them."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def words(text):
    """A message without what differs: … and a {} of str.format are the same."""
    return re.sub(r"\s+", " ", re.sub(r"[…{}]+", "…", text))


def test_messages_of_troubleshooting_are_those_of_the_code():
    sources = (ROOT / "cegppo_jax").rglob("*.py")
    said = [words(text) for path in sources for text in texts(path.read_text("utf-8"))]
    page = PAGES["experiments/howto/troubleshooting.md"]
    quoted = [
        message
        for table in tables(page)
        for row in table
        for message in re.findall(r"`([^`]+)`", row[0])
        if " " in message
    ]
    assert len(quoted) > 20
    lost = [one for one in quoted if not any(words(one).strip("… ") in text for text in said)]
    assert not lost


def test_the_table_of_presets_is_that_of_the_presets():
    """Each row: paper, preset, the numbers that it sets."""
    [table] = [t for t in tables(PAGES["README.md"]) if t[0][1].strip("`") in presets.METHODS]
    presets_named = {row[1].strip("`"): row[2] for row in table}
    assert presets_named.keys() == presets.METHODS.keys()
    for preset, numbers in presets_named.items():
        expected = presets.SHARED | presets.METHODS[preset]
        written = dict(re.findall(r"`([a-z_]+(?:\.[a-z_]+)*)` ([\d.e-]+|`\w+`)", numbers))
        assert written, preset
        for name, value in written.items():
            [full] = [one for one in expected if one.endswith(f".{name}") or one == name]
            if value.startswith("`"):
                assert expected[full] == value.strip("`")
            else:
                assert float(value) == pytest.approx(expected[full])


def test_the_map_has_every_folder_and_command():
    page = PAGES["CONTRIBUTING.md"]
    folders = [f"{path.parent.name}/" for path in (ROOT / "cegppo_jax").glob("*/__init__.py")]
    commands = [f"{name}.py" for name in COMMANDS]
    assert [name for name in (*folders, *commands) if f" {name}" not in page] == []


def shape(line):
    """A line of output without its numbers and alignment, for any run and installation."""
    line = re.sub(r"[-+]?\d[\d.,]*(?:e[-+]\d+)?%?|(?<= )-(?= |$)", "# ", line)
    line = re.sub(r"\S*runs/\w+", "RUN", line.replace("python -m cegppo_jax", "cegppo"))
    return re.sub(r"(# ?)+|\s+", lambda found: " # " if "#" in found[0] else " ", line).split()


def test_what_the_first_command_prints_is_what_a_run_prints(finished_run):
    workdir, printed = finished_run
    said = [shape(line.replace(str(workdir), "runs/quickstart")) for line in printed.splitlines()]
    [shown] = re.findall(r"```\n(64 prompts.*?)```", PAGES["README.md"], re.DOTALL)
    for line in shown.splitlines():
        assert line.strip() in ("", "...") or shape(line) in said, line


def test_the_readme_is_a_front_door():
    assert len(PAGES["README.md"].splitlines()) <= 200
