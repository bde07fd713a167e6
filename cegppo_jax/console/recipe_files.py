"""What a recipe says of itself, read from its text without running it: its question, variants,
hardware and time.

A recipe is a file with a function get_config(). Its docstring begins with a question or sentence
and has lines that begin with "Hardware:" and "Time:". VARIANTS, if it has any, is a dict by name, a
tuple of names, or one of them in a file beside it: `VARIANTS = paper_scale.VARIANTS`.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

RECIPES = Path(__file__).parents[2] / "configs"
NO_RECIPES = {"__init__", "base", "presets", "paper_scale", "setup"}


@dataclasses.dataclass(frozen=True)
class RecipeFile:
    """What a recipe says of itself."""

    path: Path
    question: str  # the first paragraph of its docstring
    variants: tuple[str, ...]
    hardware: str  # "" where it says nothing
    time: str


def recipe_files(folder: Path) -> tuple[list[RecipeFile], list[str]]:
    """Returns the recipes of a folder, or of one file, by name; and a line for each file that is
    no Python.

    Raises:
      ValueError: there is no such folder or file.
    """
    if not folder.exists():
        raise ValueError(f"{folder} does not exist: give a folder of recipes, or a recipe")
    paths = sorted(folder.glob("*.py")) if folder.is_dir() else [folder]
    found, unreadable = [], []
    for path in paths:
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError) as error:  # ValueError: not UTF-8, or null bytes
            unreadable.append(f"{path} cannot be read: {error}")
            continue
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        if "get_config" in functions and path.stem not in NO_RECIPES:
            found.append(_described(path, tree))
    return found, unreadable


def _described(path: Path, tree: ast.Module) -> RecipeFile:
    text = ast.get_docstring(tree) or ""
    paragraphs = [" ".join(one.split()) for one in re.split(r"\n\s*\n|\n(?=[A-Z]\w+: )", text)]

    def said(label: str) -> str:
        return next(
            (one.removeprefix(label).strip() for one in paragraphs if one.startswith(label)), ""
        )

    variants = _names(path, tree, "VARIANTS")
    return RecipeFile(path, paragraphs[0], variants, said("Hardware:"), said("Time:"))


def _names(path: Path, tree: ast.Module, constant: str) -> tuple[str, ...]:
    """Returns the names in a constant of a module: in a dict, a tuple, or another file's."""
    for node in tree.body:
        if not isinstance(node, ast.Assign) or ast.unparse(node.targets[0]) != constant:
            continue
        value = node.value
        if isinstance(value, ast.Attribute):
            beside = path.with_name(f"{ast.unparse(value.value)}.py")
            if not beside.is_file():
                return ()
            return _names(beside, ast.parse(beside.read_text(encoding="utf-8")), value.attr)
        return tuple(_texts(value.keys if isinstance(value, ast.Dict) else [value]))
    return ()


def _texts(values: Iterable[ast.expr | None]) -> Iterator[str]:
    """Yields the texts among expressions, and in tuples, lists and *(...) among them."""
    for value in values:
        if isinstance(value, ast.Constant):
            yield str(value.value)
        elif isinstance(value, ast.Tuple | ast.List):
            yield from _texts(value.elts)
        elif isinstance(value, ast.Starred):
            yield from _texts([value.value])
