"""Opens a pretrained model by name: its architecture, its checked tensors, its EOS ids."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from cegppo_jax.data.model_files import (
    files_digest,
    locate_model,
    named_if_damaged,
    open_gguf,
    read_json,
)
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import Params
from cegppo_jax.models.pretrained.gguf_source import (
    GGUFSource,
    gguf_ends,
    gguf_fields,
    gguf_generation,
)
from cegppo_jax.models.pretrained.harmless_fields import GENERATION
from cegppo_jax.models.pretrained.huggingface_config import model_config
from cegppo_jax.models.pretrained.padded_vocabulary import PaddedVocabulary
from cegppo_jax.models.pretrained.tensor_sources import SafetensorsSource, TensorSource
from cegppo_jax.models.pretrained.weights import OUTER, check_complete, load_leaves, load_params


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A model whose files have been opened and checked, but whose weights have not been read."""

    model: ModelConfig
    source: TensorSource
    eos_ids: tuple[int, ...]  # that its files name, in their order; the tokenizer may know another
    generation: Mapping[str, Any]  # its generation_config.json

    def load(self, mesh: Mesh) -> Params:
        """Loads stacked float32 parameters in their layout on the mesh."""
        return load_params(self.source, self.model, mesh)

    def load_leaves(self, mesh: Mesh) -> Iterator[tuple[str, jax.Array]]:
        """Yields (path, leaf) of the same parameters one by one, leaves of layers as [L, ...],
        for callers that cannot hold them all twice.
        """
        return load_leaves(self.source, self.model, mesh)

    def padded(self, multiple: int) -> Pretrained:
        """Returns the same model with a vocabulary filled up to a multiple by rows of zeros."""
        model = self.model.padded(multiple)
        if model == self.model:
            return self
        names = {OUTER["embedding"], OUTER["head"]} & self.source.shapes.keys()
        source = PaddedVocabulary(self.source, names, model.vocab_size)
        return dataclasses.replace(self, model=model, source=source)

    def fingerprint(self) -> str:
        """Returns hexadecimal digits that identify its weight files, which are read for this."""
        return files_digest(self.source.files)


def open_pretrained(name: str, ignored_fields: Collection[str] = ()) -> Pretrained:
    """Opens a folder, .gguf file, hub id or "package:<name>".

    Args:
      ignored_fields: fields of config.json to ignore (huggingface_config.model_config).

    Raises:
      ValueError: it does not exist, is incomplete, or is of a kind that is not supported.
    """
    path = locate_model(name)
    with named_if_damaged(path):
        return _open_gguf(path) if path.suffix == ".gguf" else _open_folder(path, ignored_fields)


def _open_folder(folder: Path, ignored_fields: Collection[str]) -> Pretrained:
    fields = read_json(folder / "config.json")
    model = model_config(fields, str(folder / "config.json"), ignored_fields)
    source = SafetensorsSource(folder)
    check_complete(source, model, str(folder))
    path = folder / "generation_config.json"
    named = {folder / "config.json": fields}
    if path.is_file():
        generation = read_json(path)
        named = {path: generation} | named
    else:  # transformers reads them in config.json then
        generation = {name: value for name, value in fields.items() if name in GENERATION}
    return Pretrained(model, source, eos_ids_of(named, model.vocab_size), generation)


def _open_gguf(path: Path) -> Pretrained:
    reader = open_gguf(path)
    model = model_config(gguf_fields(reader, str(path)), str(path))
    source = GGUFSource(reader, model.head_size, path)
    check_complete(source, model, str(path))
    named = {"eos_token_id": gguf_ends(reader)}
    return Pretrained(
        model, source, eos_ids_of({path: named}, model.vocab_size), gguf_generation(reader)
    )


def eos_ids_of(places: Mapping[Path, Mapping[str, Any]], vocab_size: int) -> tuple[int, ...]:
    """Returns every EOS id once, in the order of the files, whose eos_token_id is missing, a number
    or a list.

    Raises:
      ValueError: an id is not in the vocabulary, so completions would end only by their length.
    """
    found: dict[int, None] = {}
    for place, fields in places.items():
        ids = fields.get("eos_token_id")
        ids = ids if isinstance(ids, list) else [] if ids is None else [ids]
        wrong = [one for one in ids if type(one) is not int or not 0 <= one < vocab_size]
        if wrong:
            raise ValueError(
                f"{place}: eos_token_id {wrong} is not a token: ids are whole numbers from 0 to "
                f"{vocab_size - 1}"
            )
        found |= dict.fromkeys(ids)
    return tuple(found)
