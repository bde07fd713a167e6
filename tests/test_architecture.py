"""The house keeps its shape: imports only point down, settings stay typed, files stay small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cegppo_jax

PACKAGE = Path(cegppo_jax.__file__).parent

# From the ground up. A module imports from lower layers and from its own folder, and from nowhere
# else: not from beside, not from above.
LAYERS = (
    ("types", "records", "finite", "metric_names", "archives"),
    ("evaluation",),
    ("data", "rewards"),  # no jax from here down: they run in worker processes
    ("decontaminate", "verify"),
    ("steering_settings", "batch_settings", "carried_groups"),
    ("sharding", "compilation", "optimizer", "steering", "advantages", "aggregation", "mismatch"),
    ("group_buffer",),
    ("models", "packing", "logprobs"),
    ("sampling", "losses", "train_state"),
    ("update", "metrics"),
    ("report_panels",),
    ("checkpoint", "rollout", "imitation", "progress", "samples", "report", "equal_rewards"),
    ("minibatches", "step_metrics", "evaluator"),
    ("settings", "run_directory"),
    ("fits", "evaluation_files", "memory", "run_model"),
    ("parts", "command_line"),
    ("run_state", "draw_groups"),
    ("evaluate", "compare", "export", "supervised"),
    ("train",),
)
WITHOUT_JAX = (
    *("types", "records", "finite", "archives", "data", "rewards", "decontaminate"),
    *("steering_settings", "steering", "advantages", "aggregation", "evaluation"),
    "intervals",
    *("batch_settings", "carried_groups", "group_buffer"),
)
KNOW_THE_CONFIG = ("settings", "run_directory", "run_state", "train", "evaluate")

MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 300

TREES = {path.relative_to(PACKAGE): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
MODULES = [pytest.param(path, tree, id=str(path)) for path, tree in sorted(TREES.items())]


def home(path):
    """data/tasks.py -> data, train.py -> train: the name that LAYERS has."""
    return path.parts[0].removesuffix(".py")


def height(name):
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


def imported(tree):
    """-> full dotted names of all imports, inside functions as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name their module in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def functions(tree):
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


def own_lines(function):
    """Lines of a function's body: without its docstring, and without functions inside it, which
    count for themselves.
    """
    body = function.body[1:] if ast.get_docstring(function) else function.body
    inner = [node for node in functions(function) if node in body]
    lines = function.end_lineno - body[0].lineno + 1 if body else 0
    return lines - sum(node.end_lineno - node.lineno + 1 for node in inner)


def test_every_module_has_one_layer():
    listed = [name for layer in LAYERS for name in layer]
    assert sorted(listed) == sorted({home(path) for path in TREES} - {"__init__"})


@pytest.mark.parametrize(("path", "tree"), MODULES)
def test_imports_only_point_down(path, tree):
    for name in imported(tree):
        top, *rest = name.split(".")
        assert top not in ("configs", "experiments", "tests"), f"{path} imports {name}, from above"
        if top == "cegppo_jax" and rest[0] != home(path):
            assert height(rest[0]) < height(home(path)), f"{path} imports {name}"


def test_worker_processes_need_no_jax():
    """Imported for real, since a library could bring it in as well."""
    paths = [path for path in TREES if home(path) in WITHOUT_JAX]
    assert len(paths) > 5
    names = [".".join(("cegppo_jax", *path.with_suffix("").parts)) for path in paths]
    script = f"import sys, {', '.join(names)}; print('jax' in sys.modules, 'flax' in sys.modules)"
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert child.stdout == "False False\n", child.stderr


@pytest.mark.parametrize(("path", "tree"), MODULES)
def test_the_config_stops_at_the_door(path, tree):
    """Below it, `config` is a model's shape (ModelConfig) or does not exist."""
    if home(path) in KNOW_THE_CONFIG:
        return
    assert "ml_collections.ConfigDict" not in imported(tree)
    for function in functions(tree):
        arguments = function.args
        for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            typed = one.annotation is not None and ast.unparse(one.annotation)
            assert one.arg != "config" or typed == "ModelConfig", f"{path}: {function.name}"


@pytest.mark.parametrize(("path", "tree"), MODULES)
def test_files_and_functions_are_small_and_named(path, tree):
    for function in functions(tree):
        lines = own_lines(function)
        assert lines <= MAX_FUNCTION_LINES, f"{path}: {function.name} has {lines} lines"
    lines = len((PACKAGE / path).read_text().splitlines())
    assert lines <= MAX_FILE_LINES, f"{path} has {lines} lines"
    assert path.stem not in ("utils", "util", "helpers", "misc", "common", "tools")
    assert ast.get_docstring(tree), f"{path} has no docstring"
