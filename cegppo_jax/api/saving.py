"""A policy by hand as a folder that others load."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax

from cegppo_jax.api.policy import Policy
from cegppo_jax.export import Exportable, Exported, check_export, write_export
from cegppo_jax.storage.outputs import written_place

SHARD_GIGABYTES = 2.0  # of one file, at most


def save(policy: Policy, folder: str | Path, *, dtype: str = "bfloat16") -> Exported:
    """Writes a folder that transformers, vLLM, SGLang and `load` read: safetensors, config.json,
    generation_config.json and the tokenizer. It is read back and compared before it gets its name.
    The optimizer's state is not saved.

    Args:
      folder: it must not exist. It may be in a bucket: gs://...
      dtype: of the weights: "bfloat16", "float16" or "float32".

    Raises:
      ValueError: the folder exists, no such dtype, or what was written does not read back
        unchanged.
    """
    # The files record neither unused ids, which follow from the tokenizer, nor copies of heads. The
    # tree is copied, since the export replaces its leaves.
    exported = Exportable(
        jax.tree.map(lambda leaf: leaf, policy.params),
        dataclasses.replace(policy.model, unused_ids=(), kv_copies=1),
        policy.tokenizer,
        {"eos_token_id": list(policy.eos_ids)},
    )
    with written_place("folder", str(folder), may_exist=False) as out, jax.set_mesh(policy.mesh):
        check_export(out, dtype, SHARD_GIGABYTES)
        return write_export(out, exported, policy.mesh, dtype, SHARD_GIGABYTES, step=policy.updates)
