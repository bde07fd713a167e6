"""Exports a run's checkpoint as a folder that transformers, vLLM and SGLang can load.

    cegppo export --run=runs/quickstart --out=models/quickstart

It writes safetensors, config.json, generation_config.json and the tokenizer, reads them back and
compares, and only then gives the folder its name.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags, logging
from jax.sharding import Mesh
from safetensors.numpy import save_file
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cegppo_jax import distributed
from cegppo_jax.console.start import ends_on_bad_input, start_command
from cegppo_jax.data.model_files import read_json
from cegppo_jax.data.saved_tokenizer import check_tokenizer_reads_back, save_tokenizer
from cegppo_jax.models.attention.mask import SegmentMask
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import Decoder, Params, output_head, run_decoder
from cegppo_jax.models.pretrained.huggingface_config import huggingface_fields
from cegppo_jax.models.pretrained.open import open_pretrained
from cegppo_jax.models.pretrained.tensor_sources import INDEX, SINGLE_FILE
from cegppo_jax.models.pretrained.weights import export_tensors, tensor_names
from cegppo_jax.run.hosts import joined_hosts
from cegppo_jax.run.new_folder import appears
from cegppo_jax.run.saved_model import DESCRIPTION, open_run_model
from cegppo_jax.sharding import MeshShape, make_mesh
from cegppo_jax.storage import strict_json
from cegppo_jax.storage.bucket import in_bucket
from cegppo_jax.storage.mirror import opened_folder
from cegppo_jax.storage.outputs import written_place

NAMED_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
EXPORT_DTYPES = {"bfloat16": jnp.bfloat16, "float16": np.float16, "float32": np.float32}
COMPARED_TOKENS = 64  # of the logits that are compared: the vocabulary's first ids, in a row


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written, and how far it differs from the run's weights."""

    step: int
    tensors: int
    files: int
    gigabytes: float
    logit_difference: float  # largest, over COMPARED_TOKENS: what rounding to the dtype did

    def __str__(self) -> str:
        return (
            f"step {self.step}: {self.tensors} tensors in {self.files} file(s), "
            f"{self.gigabytes:.3f} GB; read back bit for bit; logits differ from the run's by "
            f"{self.logit_difference:.2e} at most"
        )


def export_run(
    workdir: Path, out: Path, dtype: str, step: int | None, shard_gigabytes: float
) -> Exported:
    """Exports a run to the folder `out`.

    The host holds, one after the other, twice the largest leaf (a stack of all layers' kernels)
    while it reads the checkpoint and compares, and twice a file of shard_gigabytes while it writes.
    On CPU the float32 parameters are in its memory as well.

    Raises:
      ValueError: the run has no checkpoint (of that step), `out` already exists, or what was
        written does not read back unchanged; then nothing is left behind.
    """
    check_export(out, dtype, shard_gigabytes)
    run = open_run_model(workdir, step)
    mesh = export_mesh(run.model)
    with jax.set_mesh(mesh):
        model = Exportable(
            run.load(mesh),
            run.model,
            AutoTokenizer.from_pretrained(run.tokenizer, trust_remote_code=False),
            read_json(run.workdir / DESCRIPTION / "generation_config.json"),
        )
        return write_export(out, model, mesh, dtype, shard_gigabytes, run.step)


@dataclasses.dataclass(frozen=True)
class Exportable:
    """What an exported folder holds."""

    params: Params  # stacked layers; written, then replaced leaf by leaf by what reads back
    model: ModelConfig
    tokenizer: PreTrainedTokenizerBase
    generation: dict[str, Any]  # generation_config.json


def check_export(out: Path, dtype: str, shard_gigabytes: float) -> None:
    """Raises ValueError for a folder that exists, or a dtype or size that is not allowed."""
    if dtype not in EXPORT_DTYPES:
        raise ValueError(f"dtype = {dtype!r}: must be one of {sorted(EXPORT_DTYPES)}")
    if not 0 < shard_gigabytes < math.inf:
        raise ValueError(f"shard_gigabytes = {shard_gigabytes}: must be positive and finite")
    if out.exists():
        raise ValueError(f"{out} already exists: choose another folder, or remove it")


def write_export(
    out: Path, exported: Exportable, mesh: Mesh, dtype: str, shard_gigabytes: float, step: int
) -> Exported:
    """Writes a model to the folder `out`, which appears when it is whole and reads back unchanged.

    Raises:
      ValueError: what was written does not read back unchanged.
    """
    model, tokenizer = exported.model, exported.tokenizer
    shard_bytes = int(shard_gigabytes * 1e9)
    with appears(out) as folder:
        files, size = write_tensors(folder, exported.params, model, dtype, shard_bytes)
        if distributed.is_main():
            save_tokenizer(tokenizer, folder)
            fields = huggingface_fields(model, dtype)
            write_description(folder, exported.generation, fields, tokenizer)
            check_tokenizer_reads_back(folder, tokenizer)
        distributed.barrier("the export is written")
        difference = compare_logits(folder, exported.params, model, mesh, dtype)
    return Exported(step, len(tensor_names(model)), files, size / 1e9, difference)


def export_mesh(model: ModelConfig) -> Mesh:
    """Returns a mesh of all devices, each with a part of the width if they divide it."""
    divides = model.width % jax.device_count() == 0
    return make_mesh(MeshShape(1, -1, 1) if divides else MeshShape(-1, 1, 1))


def write_tensors(
    folder: Path, params: Params, model: ModelConfig, dtype: str, shard_bytes: int
) -> tuple[int, int]:
    """Writes parameters as safetensors of at most shard_bytes each (a larger tensor gets its own
    file), with an index if there are several. All hosts bring their parts of a tensor, and the main
    one writes. Returns the number of files and the bytes of tensors.
    """
    width = jnp.dtype(EXPORT_DTYPES[dtype]).itemsize
    sizes = {n: int(np.prod(shape)) * width for n, (_, _, shape) in tensor_names(model).items()}
    number, filled, file_of = 1, 0, {}
    for name, size in sizes.items():
        if filled and filled + size > shard_bytes:
            number, filled = number + 1, 0
        file_of[name], filled = number, filled + size
    paths = (
        [SINGLE_FILE]
        if number == 1
        else [f"model-{i:05}-of-{number:05}.safetensors" for i in range(1, number + 1)]
    )
    held: dict[str, np.ndarray] = {}
    for name, tensor in export_tensors(params, model, EXPORT_DTYPES[dtype]):
        if held and file_of[name] != file_of[next(iter(held))]:
            _save(folder / paths[file_of[next(iter(held))] - 1], held)
            held = {}
        held[name] = tensor
    _save(folder / paths[-1], held)
    if number > 1 and distributed.is_main():
        weight_map = {name: paths[file - 1] for name, file in file_of.items()}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        strict_json.write_json(folder / INDEX, index)
    return number, sum(sizes.values())


def _save(path: Path, tensors: dict[str, np.ndarray]) -> None:
    if distributed.is_main():
        path.touch()
        mode = path.stat().st_mode
        save_file(tensors, path, metadata={"format": "pt"})  # transformers asks for it
        path.chmod(mode)  # safetensors writes files that only their owner may read


def write_description(
    folder: Path,
    generation: Mapping[str, Any],
    fields: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Writes config.json and generation_config.json. The generation settings are those of the
    model that training started from; if it named no BOS or padding token, the tokenizer's are
    written.
    """
    generation = dict(generation)
    for name in ("bos_token_id", "pad_token_id"):
        own = getattr(tokenizer, name)
        if generation.get(name) is None and own is not None:
            generation[name] = own
    ids = {name: value for name, value in generation.items() if name in NAMED_TOKENS}
    strict_json.write_json(folder / "config.json", fields | ids)
    strict_json.write_json(folder / "generation_config.json", generation)


def compare_logits(
    folder: Path, params: Params, model: ModelConfig, mesh: Mesh, dtype: str
) -> float:
    """Returns the largest difference of logits between the written folder and the run's parameters.

    Each leaf of `params` is replaced by the folder's, so the two models are never in memory
    together.

    Raises:
      ValueError: the folder's weights are not the run's, rounded to the dtype, or they are so large
        that the logits are not finite.
    """
    opened = open_pretrained(str(folder))
    if opened.model != model:
        raise ValueError(f"config.json reads {opened.model}, and the run has {model}")

    @jax.jit
    def differs(one: jax.Array, other: jax.Array) -> jax.Array:
        rounded = one.astype(EXPORT_DTYPES[dtype]).astype(jnp.float32)
        return jnp.any((rounded != other) & ~(jnp.isnan(rounded) & jnp.isnan(other)))

    logits = jax.jit(functools.partial(compared_logits, model.on(mesh)))
    trained, wrong = logits(params), []
    for path, read in opened.load_leaves(mesh):
        *above, name = path.split("/")
        branch = functools.reduce(dict.__getitem__, above, params)
        if differs(branch[name], read):
            wrong.append(path)
        branch[name] = read
    if wrong:
        raise ValueError(f"the export does not read back as it was written: {wrong}")
    difference = float(jnp.max(jnp.abs(trained - logits(params))))
    if not math.isfinite(difference):
        raise ValueError(
            "the logits of the export are not finite, though its weights are: they are too large "
            "to compute with"
        )
    return difference


def compared_logits(model: ModelConfig, params: Params) -> jax.Array:
    """Returns float32 logits [1, COMPARED_TOKENS, V] for the vocabulary's first ids in a row."""
    tokens = jnp.arange(COMPARED_TOKENS)[None] % model.vocab_size
    positions = jnp.arange(COMPARED_TOKENS)[None]
    decoder = Decoder(model, jnp.dtype(jnp.float32), unrolled=False)
    mask = SegmentMask(jnp.ones_like(tokens))
    hidden, _ = run_decoder(decoder, params, tokens, positions, mask)
    return hidden @ output_head(params)


def main(argv: Sequence[str]) -> None:
    """Exports as the command line says."""
    del argv
    logging.set_verbosity(logging.WARNING)  # Orbax logs every file at INFO
    values = flags.FLAGS
    with (
        joined_hosts(),
        ends_on_bad_input(),
        opened_folder("--run", values.run) as workdir,
        written_place("--out", values.out, may_exist=False) as out,
    ):
        if in_bucket(values.out) and distributed.hosts() > 1:
            raise ValueError(f"--out={values.out}: one host exports to a bucket, not several")
        exported = export_run(workdir, out, values.dtype, values.step, values.shard_gigabytes)
    print(f"{values.out}  {exported}")


if __name__ == "__main__":
    start_command("export", main)
