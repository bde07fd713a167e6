"""Topologies by name, and what is said where one cannot be opened."""

import importlib.util
from pathlib import Path

import pytest

from cegppo_jax.planning import chips
from cegppo_jax.planning.chips import CHIPS, open_topology, parse_topology


def test_a_name_is_a_chip_and_its_grid():
    assert parse_topology("v5p:2x2x4") == (CHIPS["v5p"], (2, 2, 4), 1)
    assert parse_topology("v6e:4x4:12") == (CHIPS["v6e"], (4, 4), 12)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v5p", "v5p:2x2x4"),
        ("v5p:2x2x4:0", "v5p:2x2x4:2"),
        ("v5p-8", "v5p:2x2x4"),
        ("v3:2x2", "v4, v5e, v5p, v6e, v7"),
        ("v5p:2x4", "3 axes"),
        ("v5e:2x2x1", "2 axes"),
        ("v6e:0x4", "=v6e:0x4: give 1 chip or more"),
    ],
)
def test_names_that_are_none(name, said):
    with pytest.raises(ValueError, match=said):
        parse_topology(name)


def test_without_the_compiler_one_line_names_the_extra(monkeypatch):
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        chips.importlib.util, "find_spec", lambda name: None if name == "libtpu" else find(name)
    )
    with pytest.raises(ValueError, match=r"cegppo_jax\[tpu\]"):
        open_topology("v5p:2x2x1")


@pytest.mark.parametrize("name", CHIPS)
def test_figures_of_chips_are_plausible(name):
    """Slips of a factor: bytes against bits, a chip against a device."""
    chip = CHIPS[name]
    assert 150 <= chip.bf16_tflops * 1e3 / chip.hbm_gb_per_s <= 600  # operations a byte
    assert 1 <= chip.hbm_gib / 15.75 <= 13
    assert 80e9 <= chip.ici_speed * chip.devices <= 200e9


def test_the_page_has_the_figures_that_are_computed_with():
    page = (Path(chips.__file__).parent / "README.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| v")]
    assert [row[0] for row in rows] == list(CHIPS)
    for name, *figures in rows:
        chip = CHIPS[name]
        known = (
            *(chip.hbm_gib, chip.hbm_gb_per_s, chip.bf16_tflops, chip.ici_gb_per_s),
            *(chip.ici_axes, chip.devices, chip.clock_ghz),
        )
        assert tuple(None if one == "-" else float(one) for one in figures) == known
