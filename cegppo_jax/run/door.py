"""The door of a run: its parts, and the checks that they pass before anything is compiled.

`build_run` makes the checks one after the other and stops at the first that fails; `cegppo check`
makes the same ones and lists them all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property, partial

from jax.sharding import Mesh

from cegppo_jax.activity import Activity
from cegppo_jax.data.ends import Ends, find_ends
from cegppo_jax.data.problems import Problems, open_problems
from cegppo_jax.data.prompts import PromptStream, render_evaluation_prompts
from cegppo_jax.learner.imitation import Imitator
from cegppo_jax.learner.learner import Learner
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.pretrained.open import Pretrained, open_pretrained
from cegppo_jax.run.checks import (
    check_model_fits,
    check_rows_fit,
    check_scorable,
    check_thinking_shows,
)
from cegppo_jax.run.memory import check_memory, device_memory, training_need, with_pages
from cegppo_jax.run.parts import make_imitator, model_of, policy_learner, prompt_stream
from cegppo_jax.run.settings import RunSettings
from cegppo_jax.sampling.settings import SamplerSettings
from cegppo_jax.sharding import make_mesh
from cegppo_jax.types import Prompt


class RunParts:
    """The parts of a run that need no device memory. Each is made when it is first asked for, and
    raises ValueError or OSError if its settings or files are wrong.
    """

    def __init__(self, settings: RunSettings, activity: Activity) -> None:
        self.settings, self.activity = settings, activity

    @cached_property
    def mesh(self) -> Mesh:
        """The devices."""
        return make_mesh(self.settings.mesh)

    @cached_property
    def pretrained(self) -> Pretrained | None:
        """The pretrained model; None: weights are initialised."""
        model = self.settings.model
        if not model.pretrained:
            return None
        opened = open_pretrained(model.pretrained, model.ignored_fields)
        return opened.padded(model.vocabulary_multiple)

    @cached_property
    def problems(self) -> Problems:
        """Problems and tokenizer."""
        settings, evaluation = self.settings, self.settings.evaluation
        return open_problems(
            settings.problems,
            settings.model.pretrained,
            evaluation.problems,
            evaluation.problems_seed,
        )

    @cached_property
    def model(self) -> ModelConfig:
        """The architecture, as the mesh needs it."""
        return model_of(self.settings, self.pretrained, self.problems.tokenizer).on(self.mesh)

    @cached_property
    def ends(self) -> Ends:
        """The tokens that end a completion."""
        of_files = self.pretrained.eos_ids if self.pretrained else ()
        named = self.settings.problems.ending_tokens
        return find_ends(self.problems.tokenizer, of_files, named)

    @cached_property
    def stream(self) -> PromptStream:
        """The training problems as prompts."""
        return prompt_stream(self.settings, self.problems, self.settings.seed)

    @cached_property
    def imitator(self) -> Imitator:
        """The warm start."""
        return make_imitator(
            self.settings, self.mesh, self.model, self.problems, self.ends, self.activity
        )

    @cached_property
    def held_out_prompts(self) -> list[Prompt]:
        """The problems of the evaluations as prompts."""
        return render_evaluation_prompts(
            self.problems.held_out,
            self.problems.tokenizer,
            self.settings.problems.system_prompt or None,
            self.settings.sampler.max_prompt_tokens,
            self.settings.problems.instruction,
        )

    @cached_property
    def learner(self) -> Learner:
        """The learner of the run's method."""
        return policy_learner(self.settings, self.mesh, self.model)

    @cached_property
    def sampler(self) -> SamplerSettings:
        """The sampler's settings as the devices get them."""
        need = partial(training_need, self.settings, self.model, self.mesh)
        capacity = device_memory(self.mesh)
        return with_pages(self.settings.sampler, self.model, self.mesh, capacity, need)

    @cached_property
    def memory(self) -> str:
        """How much memory the run needs, in words."""
        need = training_need(self.settings, self.model, self.mesh, self.sampler)
        return check_memory(need, self.mesh)


@dataclasses.dataclass(frozen=True)
class Check:
    """One check of a start."""

    name: str  # what is looked at
    needs: tuple[str, ...]  # names of the checks that must have passed before it can be made
    # Raises ValueError or OSError, or says in a few words what was found
    passed: Callable[[RunParts], str]


def _mesh(parts: RunParts) -> str:
    shape = ", ".join(f"{axis} {size}" for axis, size in parts.mesh.shape.items())
    return f"{shape} on {parts.mesh.size} of {parts.mesh.devices.flat[0].platform}"


def _model_files(parts: RunParts) -> str:
    return parts.settings.model.pretrained if parts.pretrained else "initialised, no files"


def _problems(parts: RunParts) -> str:
    known = len(parts.problems.train.known_problems)
    train = f"{known:,}" if known else "generated ones"
    return f"{train} to train on, {len(parts.problems.held_out):,} held out"


def _answers(parts: RunParts) -> str:
    check_scorable(parts.problems, parts.settings)
    return f"readable by {', '.join(parts.settings.reward.verifiers)}"


def _sizes(parts: RunParts) -> str:
    model = parts.model
    check_model_fits(parts.settings.sampler, model, parts.problems.tokenizer, parts.mesh)
    check_rows_fit(parts.settings, parts.mesh)
    return (
        f"vocabulary of {model.vocab_size:,}, {model.layers} layers, sequences of at most "
        f"{parts.settings.sampler.max_sequence_tokens:,} tokens"
    )


def _tokenizer(parts: RunParts) -> str:
    check_thinking_shows(parts.settings.reward, parts.problems.tokenizer)
    return f"{len(parts.ends.ids)} tokens end a completion"


def _prompts(parts: RunParts) -> str:
    lengths = parts.stream.validate()
    skipped = f", {lengths.too_long:,} too long" if lengths.too_long else ""
    return f"{lengths.checked:,} of training, {lengths.longest_tokens:,} tokens at most{skipped}"


def _warm_start(parts: RunParts) -> str:
    steps = parts.imitator.steps
    return f"{steps:,} steps on worked solutions" if steps else "none"


def _held_out_prompts(parts: RunParts) -> str:
    return f"{len(parts.held_out_prompts):,} of evaluations"


def _memory(parts: RunParts) -> str:
    assert parts.learner is not None  # its method's numbers go together
    return parts.memory.removeprefix("memory: ")


# In the order of the door. The verifiers' self-test comes after them, since it starts processes.
CHECKS = (
    Check("mesh and devices", (), _mesh),
    Check("model files", (), _model_files),
    Check("problems and tokenizer", (), _problems),
    Check("answers", ("problems and tokenizer",), _answers),
    Check(
        "model, tokenizer and mesh",
        ("mesh and devices", "model files", "problems and tokenizer"),
        _sizes,
    ),
    Check("ends and tags", ("model files", "problems and tokenizer"), _tokenizer),
    Check("training prompts", ("problems and tokenizer",), _prompts),
    Check("warm start", ("model, tokenizer and mesh", "ends and tags"), _warm_start),
    Check("held-out prompts", ("problems and tokenizer",), _held_out_prompts),
    Check("memory", ("model, tokenizer and mesh",), _memory),
)
VERIFIERS_NEED = ("answers",)
