"""CONTRIBUTING.md names files and functions that exist, and no page holds a half-done merge."""

import re
from pathlib import Path

import pytest

import cegppo_jax

PACKAGE = Path(cegppo_jax.__file__).parent
ROOT = PACKAGE.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`([\w/]+\.py): (\w+)`", TEXT)))
PATHS = sorted(set(re.findall(r"`((?:tests|configs|experiments|\.ci)/[\w/.]*)`", TEXT)))


def test_the_path_has_ten_stops():
    assert re.findall(r"(?m)^(\d+)\. `", TEXT) == [str(n) for n in range(1, 11)]


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_names_exist(file, name):
    source = (PACKAGE / file).read_text(encoding="utf-8")
    assert re.search(rf"(?m)^(?:(?:def|class) {name}\b|{name}\s*[:=])", source)


@pytest.mark.parametrize("path", PATHS)
def test_paths_exist(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("folder", [".", *("cegppo_jax", "configs", "experiments", "tests")])
def test_no_merge_is_half_done(folder):
    files = (ROOT / folder).glob("*.md") if folder == "." else (ROOT / folder).rglob("*.*")
    for file in files:
        if file.suffix in (".md", ".py"):
            found = re.search(r"(?m)^(?:<{7} |={7}$|>{7} ).*", file.read_text(encoding="utf-8"))
            assert not found, f"{file}: {found}"


def test_no_test_asks_for_another_compiler_behind_xla_flags():
    """Or XLA_FLAGS="" would not compile it as for users, as CONTRIBUTING.md says."""
    asking = {
        file.name
        for file in (ROOT / "tests").rglob("*.py")
        if re.search(r"compiler_options\s*=|xla_\w+_optimization", file.read_text(encoding="utf-8"))
    }
    assert asking == {"compiling.py", "test_contributing.py"}
