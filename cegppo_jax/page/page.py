"""Runs -> one HTML file that needs nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go

from cegppo_jax.page import overview
from cegppo_jax.page.arms import Arm, open_arms
from cegppo_jax.page.charts import SECTIONS, Chart
from cegppo_jax.page.completions import browse
from cegppo_jax.page.doctor import Diagnosis, diagnose_arm
from cegppo_jax.page.figures import arm_colour, figures_of
from cegppo_jax.page.tokens import COLOURINGS, STYLE, legend
from cegppo_jax.reporting.metric_names import METRICS
from cegppo_jax.storage import strict_json
from cegppo_jax.storage.writing import writing

MOST_NAMES = 3  # of arms, in a title
TEMPLATE = Path(__file__).parent / "template"
TOOLBAR = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["lasso2d", "select2d"],
}


def write_page(
    arms: Mapping[str, Sequence[Path]], out: Path, *, title: str = "", cdn: bool = False
) -> list[Diagnosis]:
    """Writes the page of named arms, each the directories of its runs with different seeds, and
    returns what the doctor found in each arm.

    Args:
      out: the file; it is replaced as a whole.
      title: of the page; "": the names of the arms.
      cdn: whether plotly.js comes from its server: the page is 5 MB smaller and needs a network.

    Raises:
      ValueError: a directory holds no run, or there is none.
      OSError: `out` cannot be written.
    """
    opened = open_arms(arms)
    diagnoses = [diagnose_arm(arm) for arm in opened]
    page = render(opened, diagnoses, title or default_title(opened), cdn)
    partial = strict_json.partial(out)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(page, encoding="utf-8", errors="replace")
        os.replace(partial, out)
    return diagnoses


def default_title(arms: Sequence[Arm]) -> str:
    """The names of few arms, the number of many."""
    if len(arms) > MOST_NAMES:
        return f"{len(arms)} arms, {sum(len(arm.runs) for arm in arms)} runs"
    return " · ".join(arm.name for arm in arms)


def render(arms: Sequence[Arm], diagnoses: Sequence[Diagnosis], title: str, cdn: bool) -> str:
    """Returns the page as HTML. The template escapes whatever is not marked as HTML here."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections, plots = [], Plots(cdn)
    for section in SECTIONS:
        charts = [plots.html(chart, arms) for chart in section.charts]
        if any(charts):
            sections.append((section.title, [one for one in charts if one]))
    rule = str(arms[0].settings.get("loss.high_probability", "half"))
    return environment.get_template("page.html").render(
        title=title,
        arms=[(arm.name, arm_colour(place)) for place, arm in enumerate(arms)],
        seeds=max(len(arm.runs) for arm in arms),
        facts=overview.facts(arms),
        diagnoses=diagnoses,
        glance=overview.at_a_glance(arms),
        sections=sections,
        completions=browse(arms),
        colourings=COLOURINGS,
        legends={by: legend(by, rule) for by in COLOURINGS},
        apart=overview.settings_apart(arms),
        settings=overview.all_settings(arms),
        evaluations=overview.evaluations(arms),
        machines=overview.machines(arms),
        style=(TEMPLATE / "page.css").read_text() + STYLE,
        script=(TEMPLATE / "page.js").read_text(),
    )


class Plots:
    """Numbers the figures of a page; the first brings plotly.js along."""

    def __init__(self, cdn: bool) -> None:
        self._source: Any = "cdn" if cdn else True
        self._count = 0

    def html(self, chart: Chart, arms: Sequence[Arm]) -> dict[str, Any] | None:
        """Returns what the template needs of a chart; None if no arm has any of its numbers."""
        figures = [(name, self._figure(figure)) for name, figure in figures_of(chart, arms)]
        if not figures:
            return None
        metrics = {series.name: METRICS[series.name] for series in chart.series}
        return {"chart": chart, "figures": figures, "metrics": metrics}

    def _figure(self, figure: go.Figure) -> str:
        source, self._source = self._source, False
        self._count += 1
        return str(
            figure.to_html(
                full_html=False,
                include_plotlyjs=source,
                div_id=f"plot{self._count}",
                config=TOOLBAR,
                default_width="100%",
            )
        )
