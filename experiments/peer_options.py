"""Do the options on the pages howto/from_verl.md and howto/from_trl.md exist in these versions?

    pip download --no-deps --dest peers verl==0.9.1 trl==1.16.0 transformers==5.0.0
    python experiments/peer_options.py peers

Reads the wheels without installing or importing them, and prints the options that they lack.
"""

import argparse
import ast
import re
import sys
import zipfile
from pathlib import Path

import yaml

HOW_TO = Path(__file__).parent / "howto"


def read(folder: Path, package: str, name: str) -> str:
    """Returns the text of a file of the only wheel of a package."""
    [wheel] = folder.glob(f"{package}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name).decode()


def flat(config: dict, prefix: str = "") -> set[str]:
    """Returns every key of nested dicts by its dotted name."""
    names = set()
    for name, value in config.items():
        names.add(f"{prefix}{name}")
        if isinstance(value, dict):
            names |= flat(value, f"{prefix}{name}.")
    return names


def fields(source: str, name: str) -> set[str]:
    """Returns the annotated fields of a class."""
    [body] = [n.body for n in ast.walk(ast.parse(source)) if getattr(n, "name", "") == name]
    return {n.target.id for n in body if isinstance(n, ast.AnnAssign)}


def verl_options(folder: Path) -> set[str]:
    """Returns the options of verl's PPO trainer."""
    text = read(folder, "verl", "verl/trainer/config/_generated_ppo_trainer.yaml")
    return flat(yaml.safe_load(text))


def trl_options(folder: Path) -> set[str]:
    """Returns the options of TRL's GRPOConfig and of transformers' TrainingArguments under it."""
    own = fields(read(folder, "trl", "trl/trainer/grpo_config.py"), "GRPOConfig")
    inherited = read(folder, "transformers", "transformers/training_args.py")
    return own | fields(inherited, "TrainingArguments")


def options_on(page: Path) -> set[str]:
    """Returns the names in the first column of a page's first table."""
    table = re.search(r"(?m)(?:^\|.*\n)+", page.read_text(encoding="utf-8"))
    assert table is not None
    rows = table[0].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def main() -> None:
    """Prints what the wheels lack. Exits with 1 if that is anything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    lacking = {
        "verl": options_on(HOW_TO / "from_verl.md") - verl_options(folder),
        "trl": options_on(HOW_TO / "from_trl.md") - trl_options(folder),
    }
    for package, names in lacking.items():
        print(f"{package}: {sorted(names) or 'has all of them'}")
    sys.exit(any(lacking.values()))


if __name__ == "__main__":
    main()
