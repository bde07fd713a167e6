"""cegppo_jax/losses/README.md against the code: every method and wrapper has its row, its picture
and the knobs that it reads, and no others.
"""

import fnmatch
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from cases import GRIDS, PAPERS, inputs_of, knobs_of

import cegppo_jax.losses
from cegppo_jax.learner.advantages import ADVANTAGES
from cegppo_jax.learner.mismatch import CORRECTIONS
from cegppo_jax.losses.aggregation import AGGREGATIONS
from cegppo_jax.losses.selection import SELECTIONS, BatchView
from cegppo_jax.losses.surrogates import SURROGATES
from cegppo_jax.losses.wrappers import WRAPPERS, wrapped
from cegppo_jax.rewards.overlong import OVERLONG
from cegppo_jax.steering.schedule import SHAPES

FOLDER = Path(cegppo_jax.losses.__file__).parent
PAGE = (FOLDER / "README.md").read_text()
# Cells of the rows whose first cell is a name in code.
ROWS = {
    cells[0].strip("` "): cells
    for line in PAGE.splitlines()
    if re.match(r"\| `\w+` \|", line) and (cells := re.split(r"(?<!\\)\|", line.strip("|")))
}
# Numbers at which every knob of every method changes something on the grid.
LIVELY = PAPERS | dict(
    covariance_fraction=0.1, covariance_low=0.2, covariance_high=2.0, aspo_cap=1.2, dual_clip=1.3
)
TOKENS = GRIDS["packed"]


def terms_of(method, knobs):
    """-> value and gradient, with the selections that the knobs make."""
    inputs, knobs = inputs_of(TOKENS), knobs_of(knobs)
    arrays = inputs.policy_logprobs, inputs.entropy, inputs.log_ratio, inputs.advantages
    mask = jnp.asarray(TOKENS.completion_mask)
    view = BatchView(*(x[None] for x in arrays), mask=mask[None], uniform=inputs.uniform[None])
    selected = {name: SELECTIONS[name](view, knobs)[0] for name in method.selections}
    terms = method.surrogate(method.level(inputs.replace(selected=selected)), knobs)
    return [np.where(TOKENS.completion_mask, x, 0) for x in (terms.value, terms.gradient)]


def knobs_read(method):
    """-> knobs of which another value gives another objective."""
    own = terms_of(method, LIVELY)
    return {
        name
        for name, value in LIVELY.items()
        for factor in (0.5, 2.0)
        if not np.array_equal(terms_of(method, LIVELY | {name: factor * value}), own)
    }


def knobs_named(cell):
    """-> knobs that a cell of the page names, `clip_*` for all that begin so."""
    names = re.findall(r"`([\w*]+)`", cell)
    return {knob for name in names for knob in fnmatch.filter(LIVELY, name)}


def test_every_method_and_every_wrapper_has_a_row_and_no_other_has():
    assert ROWS.keys() == SURROGATES.keys() | WRAPPERS.keys()


@pytest.mark.parametrize("name", SURROGATES)
def test_a_methods_row_names_the_knobs_that_it_reads_and_shows_its_picture(name):
    assert knobs_named(ROWS[name][3]) == knobs_read(SURROGATES[name])
    assert f"![{name}](plots/{name}.png)" in ROWS[name][4]


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrappers_row_names_the_knobs_that_it_adds(name):
    inner = SURROGATES["ce_gppo"]
    assert knobs_named(ROWS[name][3]) == knobs_read(wrapped(inner, [name])) - knobs_read(inner)


def test_there_is_a_picture_of_every_method_and_of_nothing_else():
    assert {path.stem for path in (FOLDER / "plots").glob("*.png")} == SURROGATES.keys()


@pytest.mark.parametrize(
    "family",
    [ADVANTAGES, AGGREGATIONS, CORRECTIONS, OVERLONG, SHAPES],
    ids=["advantages", "aggregation", "mismatch", "overlong", "schedules"],
)
def test_every_choice_beside_them_is_named(family):
    assert not [name for name in family if f"`{name}`" not in PAGE]
