"""Tensors of a model whose vocabulary is filled up with rows of zeros."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from cegppo_jax.models.pretrained.tensor_sources import TensorSource


class PaddedVocabulary:
    """A TensorSource: another one, in which some tensors [V, D] have more rows, of zeros."""

    def __init__(self, source: TensorSource, names: Collection[str], rows: int):
        """Args: names: of the tensors, those that `source` has. rows: of each of them, at least
        V.
        """
        self._source = source
        self._padded = {name: (rows, source.shapes[name][1]) for name in names}

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes by name, filled up."""
        return dict(self._source.shapes) | self._padded

    @property
    def files(self) -> Sequence[Path]:
        """The files that hold the tensors."""
        return self._source.files

    @property
    def place(self) -> str:
        """The folder or file, for messages."""
        return self._source.place

    def read(self, name: str, rows: slice, columns: slice) -> np.ndarray:
        """Returns that part of a tensor, zeros beyond its file's last row."""
        if name not in self._padded:
            return self._source.read(name, rows, columns)
        there = self._source.shapes[name][0]
        begin, end, _ = rows.indices(self._padded[name][0])
        found = self._source.read(name, slice(min(begin, there), min(end, there)), columns)
        missing = (end - begin) - found.shape[0]
        return np.pad(found, [(0, missing), (0, 0)])
