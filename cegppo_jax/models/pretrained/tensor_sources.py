"""Named tensors in the files of a pretrained model, read slice by slice and never whole."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open

from cegppo_jax.data.model_files import read_json

INDEX = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
TENSOR_DTYPES = ("F32", "BF16", "F16", "F64")  # of safetensors: floating-point numbers as they are
# Buffers that old versions of transformers saved with the weights. Every program recomputes them.
RECOMPUTED = re.compile(
    r"(.*\.)?(rotary_emb\.(inv_freq|original_inv_freq|cos_cached|sin_cached)"
    r"|(self_)?(attn|attention)\.(masked_)?bias|position_ids)"
)


class TensorSource(Protocol):
    """The tensors of a model under their Hugging Face names."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes by name."""
        ...

    @property
    def files(self) -> Sequence[Path]:
        """The files that hold the tensors."""
        ...

    @property
    def place(self) -> str:
        """The folder or file, for messages."""
        ...

    def read(self, name: str, rows: slice, columns: slice) -> np.ndarray:
        """Returns that part of a tensor in its float dtype. Vectors have only rows."""
        ...


class SafetensorsSource:
    """A folder of safetensors, single or sharded with an index."""

    def __init__(self, folder: Path):
        self.place = str(folder)
        self._files: dict[str, Any] = {}  # tensor -> open file
        self._shapes: dict[str, tuple[int, ...]] = {}
        expected_in = _safetensors_of(folder)
        self.files = tuple(expected_in)
        for path, expected in expected_in.items():
            file = _opened(path)
            names = set(file.keys())
            if expected is not None and names != expected:
                raise ValueError(
                    f"{path} and {INDEX} disagree: {sorted(names ^ expected)[:5]} are in one of "
                    "them only"
                )
            for name in names:
                if RECOMPUTED.fullmatch(name):
                    continue
                piece = file.get_slice(name)
                if piece.get_dtype() not in TENSOR_DTYPES:
                    raise ValueError(
                        f"{path}: tensor {name!r} is of dtype {piece.get_dtype()}; "
                        f"{TENSOR_DTYPES} can be read. Save the model dequantised"
                    )
                self._files[name] = file
                self._shapes[name] = tuple(piece.get_shape())

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes by name."""
        return self._shapes

    def read(self, name: str, rows: slice, columns: slice) -> np.ndarray:
        """Returns that part of a tensor."""
        piece = self._files[name].get_slice(name)
        part = piece[rows] if len(self._shapes[name]) == 1 else piece[rows, columns]
        return np.asarray(part)


def _safetensors_of(folder: Path) -> dict[Path, set[str] | None]:
    """Returns a folder's safetensors files and the tensors that the index expects in each (None: no
    index).

    Raises:
      ValueError: there are none, or they are incomplete, or there are other safetensors too, so
        that it would depend on the program which ones are read.
    """
    files = _named_files(folder)
    others = sorted(path.name for path in folder.glob("*.safetensors") if path not in files)
    indexes = sorted(path.name for path in folder.glob("*.safetensors.index*.json"))
    if others:
        source = INDEX if (folder / INDEX).is_file() else SINGLE_FILE
        raise ValueError(
            f"{folder} holds other weights than those of {source}: {others[:5]} ({len(others)} "
            "in all), and not every program would read the same. Leave those that are meant, and "
            "move the others away"
        )
    if len(indexes) > 1:
        raise ValueError(f"{folder} has several indexes, {indexes}: keep {INDEX} alone")
    if len(files) > 1 and folder / SINGLE_FILE in files:
        raise ValueError(
            f"{folder / INDEX} names {SINGLE_FILE} and other files, and transformers would read "
            f"{SINGLE_FILE} alone: rename it there and in the index"
        )
    return files


def _named_files(folder: Path) -> dict[Path, set[str] | None]:
    """Returns the files that the index names, or the single file."""
    if (folder / INDEX).is_file():
        weight_map = read_json(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not all(
            isinstance(file, str) and file.endswith(".safetensors") and "/" not in file
            for file in weight_map.values()
        ):
            raise ValueError(
                f"{folder / INDEX}: its weight_map must name a .safetensors file of the folder for "
                "each tensor"
            )
        files: dict[Path, set[str] | None] = {}
        for name in sorted(set(weight_map.values())):
            if not (folder / name).is_file():
                raise ValueError(
                    f"{folder / name} is missing: {INDEX} names it for "
                    f"{sum(file == name for file in weight_map.values())} tensors"
                )
            files[folder / name] = {t for t, file in weight_map.items() if file == name}
        return files
    if (folder / SINGLE_FILE).is_file():
        return {folder / SINGLE_FILE: None}
    if pickles := sorted(path.name for path in folder.glob("*.bin")):
        raise ValueError(
            f"{folder} has no {SINGLE_FILE}, only {pickles}: pickled weights can run code and are "
            "never read. Save the model with safetensors"
        )
    raise ValueError(f"{folder} has neither {SINGLE_FILE} nor {INDEX}")


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="numpy")
    except SafetensorError as error:
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) is not a whole safetensors file: {error}. "
            "Download it again"
        ) from error
