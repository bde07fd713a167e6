"""Where policies by hand come from: files, the hub, a run, or nothing but a seed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerBase

from cegppo_jax.api.policy import Policy
from cegppo_jax.data.ends import find_ends
from cegppo_jax.data.model_files import PACKAGE, locate_model
from cegppo_jax.data.tokenizer import build_character_tokenizer, load_tokenizer
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import abstract_params, init_params
from cegppo_jax.models.pretrained.open import open_pretrained
from cegppo_jax.run.saved_model import DESCRIPTION, RunModel, is_run, open_run_model
from cegppo_jax.sharding import MeshShape, make_mesh, tree_shardings
from cegppo_jax.storage.bucket import Bucket, in_bucket
from cegppo_jax.storage.mirror import mirrored_folder
from cegppo_jax.storage.paths import local_path


def load(
    name: str | Path,
    *,
    dtype: str = "float32",
    tokenizer: str | PreTrainedTokenizerBase | None = None,
    step: int | None = None,
    mesh: Mesh | None = None,
) -> Policy:
    """Loads a policy.

    Args:
      name: a Hugging Face id or folder, a .gguf file, "package:<name>" of an installed package, or
        the directory of a run, also of one that is going on. Folders may be in a bucket: gs://...
      dtype: of activations: "bfloat16" on accelerators. Parameters are float32.
      tokenizer: another than the model's own: one, or the name of one.
      step: of a run's checkpoint; None: the newest.
      mesh: where it computes; None: data-parallel over all devices.

    Raises:
      ValueError: it is not there, not whole, or of a kind that is not supported.
      BucketError: the bucket cannot be read.
    """
    mesh = make_mesh(MeshShape(-1, 1, 1)) if mesh is None else mesh
    with _on_this_machine(str(name)) as place:
        of_run = is_run(Path(place))
        if step is not None and not of_run:
            raise ValueError(f"step = {step}, and {str(name)!r} is not the directory of a run")
        opened = open_run_model(Path(place), step) if of_run else open_pretrained(place)
        if tokenizer is None:
            tokenizer = opened.tokenizer if isinstance(opened, RunModel) else place
        if isinstance(tokenizer, str):
            tokenizer = load_tokenizer(tokenizer)
        most = max(tokenizer.get_vocab().values()) + 1
        if most > opened.model.vocab_size:
            raise ValueError(
                f"the tokenizer has {most} tokens, and {str(name)!r} a vocabulary of "
                f"{opened.model.vocab_size}: they do not belong together"
            )
        ends = opened.eos_ids if of_run else find_ends(tokenizer, opened.eos_ids, ()).ids
        model = opened.model.on(mesh).with_tokens(tokenizer.get_vocab().values())
        return Policy(opened.load(mesh), model, tokenizer, ends, mesh, dtype)


@contextlib.contextmanager
def _on_this_machine(name: str) -> Iterator[str]:
    """Yields what `load` is to open: for a folder in a bucket, a mirror of a run, or a copy of a
    model.
    """
    if not in_bucket(name):
        yield name if name.startswith(PACKAGE) else str(local_path("name", name))
    elif Bucket("name", name).exists(f"{DESCRIPTION}/config.json"):
        with mirrored_folder("name", name) as folder:
            yield str(folder)
    else:
        yield str(locate_model(name))


def random_policy(
    alphabet: str = "0123456789+-*/=;# ",
    *,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    seed: int = 0,
    mesh: Mesh | None = None,
) -> Policy:
    """Returns a small decoder with random weights and a token for each character of `alphabet`.

    Raises:
      ValueError: a character stands twice, or the heads do not divide the width.
    """
    if width % heads:
        raise ValueError(f"heads = {heads} do not divide width = {width}")
    mesh = make_mesh(MeshShape(-1, 1, 1)) if mesh is None else mesh
    tokenizer = build_character_tokenizer(alphabet)
    model = ModelConfig(
        vocab_size=len(tokenizer),
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_size=width // heads,
        mlp_width=4 * width,
        rope_theta=10_000.0,
        norm_epsilon=1e-6,
        tied_embeddings=True,
    ).on(mesh)
    _, specs = abstract_params(model, unrolled=False)
    init = jax.jit(init_params, static_argnums=0, out_shardings=tree_shardings(mesh, specs))
    with jax.set_mesh(mesh):
        params = init(model, jax.random.key(seed))
    return Policy(params, model, tokenizer, find_ends(tokenizer, (), ()).ids, mesh, "float32")
