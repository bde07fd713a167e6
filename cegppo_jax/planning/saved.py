"""Compiled programs read back from the files that --json wrote, so that a plan can be asked again,
with other lengths or another price, in seconds.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cegppo_jax.models.config import ModelConfig
from cegppo_jax.planning.compiling import CompiledProgram, ProgramMemory
from cegppo_jax.planning.traffic import ProgramTraffic, Traffic
from cegppo_jax.run.settings import RunSettings
from cegppo_jax.storage.paths import local_path
from cegppo_jax.storage.strict_json import loads

# Modules of this package that programs are made of
COMPILED_CODE = ("learner", "losses", "models", "sampling", "sharding.py", "packing.py")

# (digest of what was compiled, topology) -> its programs
SavedPrograms = dict[tuple[str, str], tuple[CompiledProgram, ...]]


def programs_digest(settings: RunSettings, model: ModelConfig) -> str:
    """Returns 16 hexadecimal digits of all that a recipe's programs are compiled from: its sizes,
    this package's code, jax and libtpu.
    """
    batch, loss = settings.batch, settings.loss
    parts = (
        *(settings.mesh, settings.sampler, settings.sampling, settings.trainer, model),
        *(batch.row_tokens, batch.rows_per_microbatch, batch.minibatch_sequences),
        *(loss.surrogate, loss.wrappers, loss.kl_place, loss.high_probability),
        *(settings.optimizer, settings.entropy_bonus, sorted(compilers().items())),
        code_digest(),
    )
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


@functools.cache
def code_digest() -> str:
    """Returns 16 hexadecimal digits of the modules that programs are made of."""
    root, found = Path(__file__).parents[1], hashlib.blake2b(digest_size=8)
    for name in COMPILED_CODE:
        for module in sorted((root / name).rglob("*.py")) or [root / name]:
            found.update(module.read_bytes())
    return found.hexdigest()


def compilers() -> dict[str, str]:
    """Returns the versions of what compiles; "none" where libtpu is absent."""
    found = {}
    for name in ("jax", "libtpu"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def read_saved(names: Iterable[str]) -> SavedPrograms:
    """Reads files of --json.

    Raises:
      ValueError: one is missing, or is no such file.
    """
    found: SavedPrograms = {}
    for name in names:
        path = local_path("--compiled", name)
        if not path.is_file():
            raise ValueError(f"--compiled={path}: there is no such file (--json writes them)")
        for plan in _plans(path):
            try:
                key = plan["digest"], plan["topology"]
                found[key] = tuple(_program(one) for one in plan["programs"])
            except (KeyError, TypeError) as error:
                raise ValueError(f"--compiled={path} is no plan of --json: {error!r}") from error
    return found


def _plans(path: Path) -> list[dict[str, Any]]:
    try:
        read = loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--compiled={path} is not JSON: {error}") from error
    return read if isinstance(read, list) else [read]


def _program(fields: dict[str, Any]) -> CompiledProgram:
    memory, traffic = fields["memory"], fields["traffic"]
    return CompiledProgram(
        name=fields["name"],
        phase=fields["phase"],
        seconds=fields["seconds"],
        memory=None if memory is None else ProgramMemory(**memory),
        traffic=(
            None
            if traffic is None
            else ProgramTraffic(Traffic(**traffic["outside"]), Traffic(**traffic["a_pass"]))
        ),
        refused=fields["refused"],
    )
