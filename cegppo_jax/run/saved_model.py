"""The model in a run's directory: described there, and read back without the run's config."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
from etils import epath
from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh

from cegppo_jax.data.model_files import files_digest, read_json
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import Params, abstract_params
from cegppo_jax.models.finite import check_finite
from cegppo_jax.models.pretrained.huggingface_config import huggingface_fields, model_config
from cegppo_jax.models.pretrained.open import eos_ids_of
from cegppo_jax.run.checkpoint import Checkpointer, abstract_state, saved_steps
from cegppo_jax.sharding import tree_shardings
from cegppo_jax.storage import strict_json
from cegppo_jax.storage.mirror import CHECKPOINTS, real_place

TOKENIZER = "tokenizer"
DESCRIPTION = "model"
GENERATION_FILE = "generation_config.json"
# Fields of a generation_config.json that are true only of the file they were read from.
OF_THE_FILE = ("_from_model_config", "_commit_hash", "transformers_version")
SAVED = "_CHECKPOINT_METADATA"  # in a checkpoint's folder


@dataclasses.dataclass(frozen=True)
class RunModel:
    """A model in a run's directory whose weights have not been read yet."""

    workdir: Path
    step: int
    model: ModelConfig
    eos_ids: tuple[int, ...]

    @property
    def tokenizer(self) -> str:
        """Folder of the run's tokenizer, including options of its chat template."""
        return str(self.workdir / TOKENIZER)

    def load(self, mesh: Mesh) -> Params:
        """-> stacked float32 parameters in their layout on the mesh; the optimizer state is left on
        disk.

        Raises:
          NonFiniteError: some are NaN or infinite.
        """
        with jax.set_mesh(mesh), Checkpointer(self.workdir / CHECKPOINTS, None) as checkpointer:
            params = checkpointer.restore_params(self._layout(mesh), self.step)
        check_finite(params, self._place())
        return params

    def load_leaves(self, mesh: Mesh) -> Iterator[tuple[str, jax.Array]]:
        """Yields (path, leaf) of the same, one after another. Raises as load does."""
        place = self._place()
        with Checkpointer(self.workdir / CHECKPOINTS, None) as checkpointer:
            for path, leaf in checkpointer.restore_leaves(self._layout(mesh), self.step):
                check_finite(unflatten_dict({tuple(path.split("/")): leaf}), place)
                yield path, leaf

    def _layout(self, mesh: Mesh) -> Params:
        shapes, specs = abstract_params(self.model.on(mesh), unrolled=False)
        return abstract_state(shapes, tree_shardings(mesh, specs))

    def fingerprint(self) -> str:
        """Returns hexadecimal digits that identify the checkpoint. They come from its metadata, in
        which Orbax writes the times of the save. A copy of the run has the same digits.
        """
        return files_digest([epath.Path(self._place()) / SAVED])

    def _place(self) -> str:
        return str(real_place(self.workdir / CHECKPOINTS / str(self.step)))


def save_model_description(
    workdir: Path,
    model: ModelConfig,
    eos_ids: Sequence[int],
    generation: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Writes model/config.json and model/generation_config.json to a run's directory, so that
    export and evaluation need only the run.

    Args:
      generation: generation_config.json of the model that the run started from.
    """
    (workdir / DESCRIPTION).mkdir(exist_ok=True)
    fields = huggingface_fields(model, "float32")
    strict_json.write_json(workdir / DESCRIPTION / "config.json", fields)
    kept = {name: value for name, value in generation.items() if name not in OF_THE_FILE}
    kept["eos_token_id"] = list(eos_ids)
    strict_json.write_json(workdir / DESCRIPTION / GENERATION_FILE, kept)


def is_run(folder: Path) -> bool:
    """Whether a folder is the directory of a run."""
    return (folder / DESCRIPTION / "config.json").is_file() and (
        real_place(folder / CHECKPOINTS).is_dir()
    )


def open_run_model(workdir: Path, step: int | None) -> RunModel:
    """Opens the model of a run at a checkpoint's step (None: the newest).

    Raises:
      ValueError: there is no run, or no checkpoint (of that step).
    """
    described = workdir / DESCRIPTION / "config.json"
    if not described.is_file():
        raise ValueError(f"{workdir} holds no run of this version (no {DESCRIPTION}/config.json)")
    model = model_config(read_json(described), str(described))
    generation = read_json(workdir / DESCRIPTION / GENERATION_FILE)
    found = sorted(saved_steps(workdir / CHECKPOINTS))
    if not found:
        raise ValueError(f"{workdir} has no finished checkpoint yet: train first")
    if step is not None and step not in found:
        raise ValueError(f"{workdir} has no checkpoint of step {step}; it has {found}")
    chosen = found[-1] if step is None else step
    if not isinstance(generation.get("eos_token_id"), list):
        raise ValueError(f"{described.with_name(GENERATION_FILE)} has no list eos_token_id")
    ends = eos_ids_of({described.with_name(GENERATION_FILE): generation}, model.vocab_size)
    return RunModel(workdir, chosen, model, ends)
