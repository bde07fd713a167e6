"""The package keeps its shape: imports only point down, settings stay typed, files stay small."""

import ast
import graphlib
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import cegppo_jax

PACKAGE = Path(cegppo_jax.__file__).parent

# The top level of the package: commands, and records that any folder may use. A record imports only
# records to its left.
COMMANDS = [
    *(
        "train",
        "check",
        "replay",
        "plan",
        "supervised",
        "evaluate",
        "compare",
        "export",
        "decontaminate",
        "verify",
    ),
    *("report", "sweep", "recipes", "__main__"),  # __main__: python -m cegppo_jax
]
RECORDS = [
    "types",
    "keys",
    "finite",
    "storage",  # a folder: local files and objects in buckets
    "saved_config",
    "short_forms",
    "read_settings",
    "import_path",
    "watchdog",
    "distributed",
    "compilation",
    "activity",
    "sharding",
    "loops",
    "row_filling",
    "packing",
]

# The folders from the ground up, each with the folders above it in this table that it imports.
FOLDERS = {
    "console": "",
    "data": "",
    "rewards": "",
    "steering": "",
    "losses": "",
    "models": "data",
    "sampling": "losses models",
    "rollout": "data rewards models sampling",
    "evaluation": "console models sampling rollout",
    "learner": "data rewards losses models rollout",
    "reporting": "console steering losses",
    "page": "reporting",
    "run": "console data rewards steering losses models sampling rollout evaluation learner "
    "reporting",
    "planning": "data losses models sampling learner reporting run",
    "sweeps": "evaluation reporting run",
}
# The by-hand API stands above all of them and uses two commands: the step of a run, and what writes
# a model.
API = "api"
COMMANDS_OF_THE_API = ["train", "export"]

# What runs in worker processes, and what a machine without an accelerator reads results with.
WITHOUT_JAX = [
    *("types", "finite", "storage", "saved_config", "short_forms"),
    *("read_settings", "import_path", "console"),
    *("data", "rewards", "steering", "page", "decontaminate", "verify", "report", "compare"),
    *("recipes", "losses.aggregation", "learner.advantages", "evaluation.estimates"),
    *("evaluation.intervals", "evaluation.files"),
    *("reporting.metrics", "reporting.samples", "reporting.run_log", "reporting.smoothing"),
    *("sweep", "sweeps.arms", "sweeps.experiment", "sweeps.table", "sweeps.run_all"),
    *("sweeps.screen", "sweeps.emit"),
    *("rollout.settings", "rollout.difficulty", "rollout.carried", "rollout.selection"),
]
KNOW_THE_CONFIG = [
    "run.command_line",
    "run.config_of_run",
    "run.settings",
    "run.directory",
    "run.lifecycle",
    "evaluate",
    "check",
    "api.runs",
]

MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 300

TREES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): (
        path,
        ast.parse(path.read_text()),
    )
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports(tree):
    """Full dotted names of all imports of the package's own modules, those inside functions too,
    and the other top-level packages.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name their module in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_modules(tree):
    """The package's modules that a module imports: "losses.contract", without cegppo_jax."""
    for name in imports(tree):
        top, _, inside = name.partition(".")
        if top == "cegppo_jax" and inside != "__version__":
            yield inside if inside in TREES else inside.rpartition(".")[0]


def place(module):
    """losses.contract -> losses, train -> train."""
    return module.split(".")[0]


def allowed(module):
    """The folders, records and commands that a module may import, apart from its own folder."""
    here = place(module)
    if here in RECORDS:
        return RECORDS[: RECORDS.index(here)]
    if here in COMMANDS:
        return [*RECORDS, *FOLDERS]
    if here == API:
        return [*RECORDS, *FOLDERS, *COMMANDS_OF_THE_API]
    return [*RECORDS, *FOLDERS[here].split()]


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


def public_names(tree):
    """Names that a module defines at its top level: (functions and classes, constants)."""
    defined, constants = set(), set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            constants |= {target.id for target in targets if isinstance(target, ast.Name)}
    return [{name for name in names if name[0] != "_"} for names in (defined, constants)]


def test_the_top_level_is_the_commands_and_the_shared_records():
    assert {place(name) for name in TREES} == {"__init__", *COMMANDS, *RECORDS, *FOLDERS, API}


def test_the_table_of_folders_points_down_and_names_no_arrow_too_many():
    used = defaultdict(set)
    for module, (_, tree) in TREES.items():
        used[place(module)] |= {place(name) for name in own_modules(tree)}
    below = []
    for folder, names in FOLDERS.items():
        assert set(names.split()) <= set(below), f"{folder} imports a folder beneath it here"
        assert set(names.split()) <= used[folder], f"{folder} no longer needs all that it lists"
        below.append(folder)


def test_imports_only_point_down():
    pointing_up = []
    for module, (_, tree) in TREES.items():
        outside = {name.split(".")[0] for name in imports(tree)}
        others = {place(name) for name in own_modules(tree)} - {place(module)}
        # __init__ has the API's names, each imported when it is first used.
        permitted = [] if module == "__init__" else allowed(module)
        wrong = outside & {"configs", "experiments", "tests"} | others - set(permitted)
        pointing_up += [f"{module} imports {name}" for name in sorted(wrong)]
    assert pointing_up == []


def test_no_module_imports_itself_by_way_of_others():
    graph = {module: set(own_modules(tree)) - {module} for module, (_, tree) in TREES.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, with the cycle


def test_a_public_name_means_one_thing():
    """Names of functions and classes, and of constants that other modules import. A command has a
    `main`, which is not imported.
    """
    homes, constants, imported = defaultdict(list), defaultdict(list), set()
    for module, (_, tree) in TREES.items():
        defined, assigned = public_names(tree)
        for name in defined - {"main"}:
            homes[name].append(module)
        for name in assigned:
            constants[name].append(module)
        imported |= {name.rpartition(".")[2] for name in imports(tree)}
    for name, modules in constants.items():
        if name in imported:
            homes[name] += modules
    assert {name: modules for name, modules in homes.items() if len(modules) > 1} == {}


def test_worker_processes_need_no_jax():
    """Imported for real, since a library could bring it in as well."""
    names = [n for n in TREES if n in WITHOUT_JAX or place(n) in WITHOUT_JAX]
    assert len(names) > len(WITHOUT_JAX)
    modules = ", ".join(f"cegppo_jax.{name}" for name in names)
    script = f"import sys, {modules}; print('jax' in sys.modules, 'flax' in sys.modules)"
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert child.stdout == "False False\n", child.stderr


def test_the_config_stops_at_the_door():
    """Below it, `config` is a model's shape (ModelConfig) or does not exist."""
    knowing = []
    for module in TREES.keys() - set(KNOW_THE_CONFIG):
        for function in functions(TREES[module][1]):
            arguments = function.args
            for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                typed = ast.unparse(one.annotation) if one.annotation else ""
                if typed == "ConfigDict" or (one.arg == "config" and typed != "ModelConfig"):
                    knowing.append(f"{module}: {function.name}({one.arg}: {typed})")
    assert knowing == []


def test_files_and_functions_are_small_and_named():
    wrong = []
    for module, (path, tree) in TREES.items():
        lengths = {function.name: own_lines(function) for function in functions(tree)}
        wrong += [
            f"{module}: {name} has {lines} lines"
            for name, lines in lengths.items()
            if lines > MAX_FUNCTION_LINES
        ]
        if (lines := len(path.read_text().splitlines())) > MAX_FILE_LINES:
            wrong.append(f"{module} has {lines} lines")
        if path.stem in ("utils", "util", "helpers", "misc", "common", "tools"):
            wrong.append(f"{module} has a name that says nothing")
        if not ast.get_docstring(tree):
            wrong.append(f"{module} has no docstring")
    assert wrong == []
