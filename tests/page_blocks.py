"""Code blocks of README.md and the pages behind it, and a folder to run them in.

A block of bash is run by a test, in a folder with the package's configs/ and experiments/, after
the blocks above it on its page. Before one that a test cannot run stands what it needs:

    <!-- needs: network -->

A block of Python whose first line is a comment with a file's name is that file.
"""

import dataclasses
import json
import os
import re
import subprocess
import sys

BLOCK = re.compile(r"(?ms)^(?:<!-- needs: ([^>]+?) -->\n)?```(bash|python)\n(.*?)^```$")
FILE = re.compile(r"# (\w+\.py)\b")
# What a block may call. In a folder for blocks, each is a script that writes down its arguments
TOOLS = ("python", "pip", "cegppo", "ruff", "mypy", "codespell", "pre-commit", "bash")
LAUNCHERS = ("gcloud", "sky", "tensorboard", "xprof")
TOOLS += LAUNCHERS
WRITES_DOWN = """#!{python}
import json, os, sys
with open({calls!r}, "a") as file:
    file.write(json.dumps([{name!r}, *sys.argv[1:]]) + "\\n")
"""
# and, where blocks are run, goes on as the tool itself, with options that make training short.
GOES_ON = {
    "python": "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n",
    "cegppo": """
from pathlib import Path
from cegppo_jax.console.main import main
if sys.argv[1] in ("train", "supervised", "evaluate"):
    sys.argv += {short!r}
if sys.argv[1] == "sweep":
    experiment = Path(sys.argv[2])
    text = experiment.read_text() + {short_base!r}
    sys.argv[2] = str(Path(__file__).with_name(experiment.name))
    Path(sys.argv[2]).write_text(text)
main()
""",
}
# What makes the base of an experiment file short: its config is changed after it is made.
SHORT_BASE = """
def base(long=base):
    config = long()
    config.update_from_flattened_dict({changes!r})
    return config
"""


def pages(root):
    """README.md and every page that it leads to, apart from the lab book's."""
    return [
        root / "README.md",
        root / "CONTRIBUTING.md",
        root / "experiments" / "performance.md",
        root / "experiments" / "buckets.md",
        root / "experiments" / "rollout_lag.md",
        root / "experiments" / "tpu_vm.md",
        root / "experiments" / "benchmark" / "README.md",
        *sorted((root / "experiments" / "howto").glob("*.md")),
        *sorted((root / "cegppo_jax").rglob("README.md")),
        *sorted((root / "colab").glob("*.md")),
    ]


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code on a page."""

    page: str
    number: int
    language: str
    code: str
    needs: str  # "": nothing that a test does not have

    @property
    def file(self):
        """The name of the file that a block of Python is, or None."""
        found = FILE.match(self.code)
        return found[1] if found and self.language == "python" else None


def blocks_of(root, page):
    """The blocks of a page in their order."""
    found = BLOCK.findall((root / page).read_text("utf-8"))
    return [Block(page, i, lang, code, needs) for i, (needs, lang, code) in enumerate(found)]


def folder_for(root, folder, short=None):
    """Makes a folder in which blocks can be called, with or without being run.

    Args:
      short: settings of every config that trains or evaluates; None: nothing is run.
    """
    tools = folder / ".bin"
    tools.mkdir()
    for name in ("configs", "experiments", "tests"):
        (folder / name).symlink_to(root / name)
    for name in TOOLS:
        text = WRITES_DOWN + (GOES_ON.get(name, "") if short is not None else "")
        calls = str(folder / "calls.jsonl")
        (tools / name).write_text(
            text.format(
                python=sys.executable,
                calls=calls,
                name=name,
                short=[f"--config.{one}={value}" for one, value in (short or {}).items()],
                short_base=SHORT_BASE.format(changes=short),
            )
        )
        (tools / name).chmod(0o755)
    return folder


def run(root, folder, code):
    """Runs a block in bash, which the first failure ends -> what was called."""
    calls = folder / "calls.jsonl"
    calls.write_text("")
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", code],
        cwd=folder,
        env=os.environ | {"PATH": f"{folder / '.bin'}:/usr/bin:/bin", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{code}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return [json.loads(line) for line in calls.read_text().splitlines()]
