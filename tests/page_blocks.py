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
# Commands of a block that are looked at instead of run: each is a script that writes what it was
# given to calls.jsonl. `python` is run afterwards if the folder was made to run it.
TOOLS = ("python", "python3", "pip", "cegppo", "ruff", "mypy", "codespell", "pre-commit", "bash")


def pages(root):
    """README.md and every page that it leads to, apart from the lab book's."""
    return [
        root / "README.md",
        root / "CONTRIBUTING.md",
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


def folder_for(root, folder, shorten=()):
    """Makes a folder in which blocks can be run; commands of TOOLS are written down and not run.

    Args:
      shorten: options that are appended to commands that train. With them `python` is run.
    """
    bin_folder = folder / ".bin"
    bin_folder.mkdir()
    for name in ("configs", "experiments", "tests"):
        (folder / name).symlink_to(root / name)
    for name in TOOLS:
        tool = bin_folder / name
        tool.write_text(
            f"#!{sys.executable}\n"
            "import json, os, sys\n"
            f"with open({str(folder / 'calls.jsonl')!r}, 'a') as file:\n"
            f"    file.write(json.dumps([{name!r}, *sys.argv[1:]]) + '\\n')\n"
            f"shorten = {list(shorten)!r}\n"
            "argv = sys.argv[1:]\n"
            f"if shorten and {name!r} == 'python':\n"
            "    trains = argv[:1] == ['-m'] and argv[1].rpartition('.')[2] in\\\n"
            "        ('train', 'supervised', 'evaluate')\n"
            "    os.execv(sys.executable, [sys.executable, *argv, *(shorten if trains else [])])\n"
        )
        tool.chmod(0o755)
    return folder


def run(root, folder, code):
    """Runs a block in bash; the first failure ends it -> what was called, what was printed."""
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
    return [json.loads(line) for line in calls.read_text().splitlines()], done.stdout
