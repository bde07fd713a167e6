"""Named arrays -> one text and back, bit for bit: the large records of a run inside its JSON.

A float32 written in decimals takes 10 to 20 characters and one array a list of them; its four bytes
take 5.3 characters in base64, keep every bit (NaNs as well) and are read without being parsed.
"""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np


def archive(arrays: Mapping[str, np.ndarray]) -> str:
    """Arrays by name, of numbers -> base64 of an .npz file."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]  # its flags are other names than ours
    return base64.b64encode(stream.getvalue()).decode("ascii")


def unarchive(text: str) -> dict[str, np.ndarray]:
    """What `archive` gave -> the same arrays.

    Raises:
      ValueError: the text is none of its results, cut or changed.
    """
    try:
        with np.load(io.BytesIO(base64.b64decode(text, validate=True)), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"not an archive of arrays: {error}") from error


def words_as_array(words: Any) -> np.ndarray:
    """What JSON can say -> its bytes, uint8."""
    return np.frombuffer(json.dumps(words).encode(), np.uint8)


def words_of_array(array: np.ndarray) -> Any:
    """What `words_as_array` gave -> the same words. Raises ValueError for other bytes."""
    return json.loads(array.tobytes())
