"""A recipe's plan on a topology: memory of each program, traffic, time and cost of a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from cegppo_jax.data.problems import open_tokenizer
from cegppo_jax.planning.chips import Topology
from cegppo_jax.planning.compiling import CompiledProgram, compile_run
from cegppo_jax.planning.estimate import StepEstimate, estimate_step
from cegppo_jax.planning.known_models import PlannedModel, pretrained_shape
from cegppo_jax.planning.lengths import Lengths
from cegppo_jax.planning.programs import plan_programs
from cegppo_jax.planning.room import Room, largest_sizes
from cegppo_jax.planning.saved import SavedPrograms, compilers, programs_digest
from cegppo_jax.run.checks import check_mesh_divides, check_rows_fit
from cegppo_jax.run.memory import training_need, with_pages
from cegppo_jax.run.parts import model_of
from cegppo_jax.run.settings import RunSettings
from cegppo_jax.sharding import batch_shards, make_mesh

# Which id ends a completion changes no shape: a comparison with one number
END = (0,)


@dataclasses.dataclass(frozen=True)
class RecipePlan:
    """What planning a recipe showed."""

    recipe: str
    topology: str
    chips: int
    hosts: int
    mesh: dict[str, int]
    digest: str  # of what its programs are compiled from (saved.programs_digest)
    versions: dict[str, str]  # of what compiled them
    model: str  # where its shape is known from
    capacity: float  # bytes a device
    programs: tuple[CompiledProgram, ...]
    step: StepEstimate | None  # None: a program was refused
    room: Room | None  # likewise

    @property
    def largest(self) -> CompiledProgram | None:
        """The program at the peak of memory; None if any was refused."""
        if any(one.memory is None for one in self.programs):
            return None
        return max(self.programs, key=lambda one: one.memory.total if one.memory else 0)

    @property
    def fits(self) -> bool:
        """Whether every program compiled, and fits beside what stays in memory."""
        largest = self.largest
        return bool(largest and largest.memory and largest.memory.total <= self.capacity)

    def fields(self) -> dict[str, Any]:
        """Returns everything as numbers and texts, for JSON."""
        found = dataclasses.asdict(self) | {"fits": self.fits}
        for shown, one in zip(found["programs"], self.programs, strict=True):
            shown["total"] = one.memory.total if one.memory else None
        if self.step is not None:
            for name, phase in self.step.phases.items():
                found["step"]["phases"][name] |= {"roofline": phase.roofline, "bound": phase.bound}
            found["step"] |= {
                "seconds": {how: self.step.seconds(how) for how in HOWS},
                "update_mfu": {how: self.step.mfu("update", how) for how in HOWS},
                "decode_share": {how: self.step.decode_share(how) for how in HOWS},
            }
        return found


HOWS = ("roofline", "compiler")


def planned_model(settings: RunSettings) -> PlannedModel:
    """Returns the shape of a recipe's model.

    Raises:
      ValueError: the pretrained model is not known and cannot be opened.
    """
    name = settings.model.pretrained
    if name:
        found = pretrained_shape(name, settings.model.ignored_fields)
        shape = found.shape.padded(settings.model.vocabulary_multiple)
        return dataclasses.replace(found, shape=shape)
    tokenizer = open_tokenizer(settings.problems, "")
    return PlannedModel(model_of(settings, None, tokenizer), "the recipe")


def plan_recipe(
    recipe: str,
    settings: RunSettings,
    topology: Topology,
    lengths: Lengths,
    price: float | None,
    told: Callable[[str], None],
    saved: SavedPrograms,
) -> RecipePlan:
    """Compiles a recipe's programs for a topology and estimates a step.

    Args:
      recipe: its name, to be shown.
      lengths: of a step's prompts and completions.
      price: dollars a chip and hour; None: no cost is given.
      told: called with a line before each program is compiled.
      saved: programs that need not be compiled again.

    Raises:
      ValueError: the recipe's sizes do not fit the topology's mesh.
    """
    mesh = make_mesh(settings.mesh, topology.devices)
    planned = planned_model(settings)
    model = dataclasses.replace(planned, shape=planned.shape.on(mesh))
    check_mesh_divides(settings.sampler, model.shape, mesh)
    check_rows_fit(settings, mesh)
    capacity = topology.chip.hbm_bytes
    need = partial(training_need, settings, model.shape, mesh)
    sampler = with_pages(settings.sampler, model.shape, mesh, capacity, need)
    settings = dataclasses.replace(settings, sampler=sampler)
    digest = programs_digest(settings, model.shape)
    programs = saved.get((digest, topology.name))
    if programs is None:
        if saved:
            told(
                f"no file of --compiled has {recipe} on {topology.name} as it would be compiled "
                "now (settings, model, code, jax and libtpu): all of it is compiled"
            )
        programs = compile_run(plan_programs(settings, model.shape, mesh, END), told)
    step = None
    if all(one.memory is not None for one in programs):
        step = estimate_step(settings, model.shape, topology, programs, lengths, price)
    return RecipePlan(
        recipe=recipe,
        topology=topology.name,
        chips=topology.chips,
        hosts=topology.hosts,
        mesh=dict(mesh.shape),
        digest=digest,
        versions=compilers(),
        model=model.source,
        capacity=capacity,
        programs=programs,
        step=step,
        room=largest_sizes(programs, settings, capacity, batch_shards(mesh)),
    )
