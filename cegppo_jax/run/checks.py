"""Checks that model, tokenizer, sampler, mesh, problems and verifiers fit each other."""

from __future__ import annotations

from jax.sharding import Mesh
from transformers import PreTrainedTokenizerBase

from cegppo_jax.data.problems import Problems
from cegppo_jax.models.attention.choose import choose_attention
from cegppo_jax.models.attention.mask import LONGEST_CODED
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.rewards.extraction import THINK_CLOSE
from cegppo_jax.rewards.scoring import check_answers, check_sources
from cegppo_jax.rewards.settings import RewardSettings
from cegppo_jax.run.settings import RunSettings
from cegppo_jax.sampling.settings import SamplerSettings, chosen
from cegppo_jax.sharding import batch_shards


def check_model_fits(
    sampler: SamplerSettings,
    model: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    mesh: Mesh,
) -> None:
    """Raises ValueError when the tokenizer has more tokens than the model, when sequences may
    become longer than it was trained for, or when the mesh does not divide it or the sampler.
    """
    tokens = max(len(tokenizer), *(i + 1 for i in tokenizer.get_vocab().values()))
    if tokens > model.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokens} tokens, but the model (model.pretrained) a "
            f"vocabulary of {model.vocab_size}: they do not belong together (problems.tokenizer)"
        )
    longest = sampler.max_sequence_tokens
    if model.max_tokens is not None and longest > model.max_tokens:
        raise ValueError(
            f"sampler.max_prompt_tokens + max_completion_tokens = {longest}, and the model was "
            f"trained for {model.max_tokens} positions at most: lower the limits"
        )
    check_mesh_divides(sampler, model, mesh)


def check_mesh_divides(sampler: SamplerSettings, model: ModelConfig, mesh: Mesh) -> None:
    """Raises ValueError when the mesh does not divide the model or the sampler, or its devices
    cannot have the cache that was asked for.
    """
    tensor, fsdp = mesh.shape["tensor"], mesh.shape["fsdp"]
    check_divides(
        ("model.kv_heads", model.cached_heads, "tensor", tensor),
        ("model.heads", model.heads, "tensor", tensor),
        ("model.mlp_width", model.mlp_width, "tensor", tensor),
        ("model.width", model.width, "fsdp", fsdp),
    )
    if model.vocab_size % tensor:
        raise ValueError(
            f"the model's vocabulary = {model.vocab_size} is not divisible by the mesh's tensor = "
            f"{tensor}: set model.vocabulary_multiple = {tensor}, and it is filled up to "
            f"{model.padded(tensor).vocab_size}"
        )
    chosen(mesh, sampler, model.head_size).check(mesh)


def check_thinking_shows(reward: RewardSettings, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ValueError when rewards look for </think> in texts that cannot contain it: special
    tokens are left out of completions' texts, so nothing would ever be right.
    """
    if reward.scope != "after_think" and "format" not in reward.verifiers:
        return
    tokens = tokenizer.encode(THINK_CLOSE, add_special_tokens=False)
    if THINK_CLOSE not in str(tokenizer.decode(tokens, skip_special_tokens=True)):
        raise ValueError(
            f"reward.scope = 'after_think' and the verifier 'format' look for {THINK_CLOSE}, which "
            "this tokenizer cannot write, or writes as a special token that no text of a "
            "completion has: choose reward.scope = 'full' and no 'format', or another tokenizer"
        )


def check_rows_fit(settings: RunSettings, mesh: Mesh) -> None:
    """Raises ValueError when the mesh does not divide the rows of a micro-batch, or its devices
    cannot attend to them as the settings want.
    """
    platform, tokens = mesh.devices.flat[0].platform, settings.batch.row_tokens
    attention = choose_attention(settings.trainer.attention, platform)
    if attention != "xla" and tokens > LONGEST_CODED:
        raise ValueError(
            f"batch.row_tokens = {tokens:,}: attention by {attention!r} takes rows of at most "
            f"{LONGEST_CODED:,} tokens. Set trainer.attention = 'xla', or shorter rows"
        )
    rows = {"batch.rows_per_microbatch": settings.batch.rows_per_microbatch}
    if settings.warm_start.steps:
        rows["warm_start.rows_per_microbatch"] = settings.warm_start.rows_per_microbatch
    shards = batch_shards(mesh)
    check_divides(*((name, size, "data x fsdp", shards) for name, size in rows.items()))


def check_divides(*needs: tuple[str, int, str, int]) -> None:
    """Raises ValueError for the first (name, size, axis, parts) whose size leaves a remainder."""
    for name, size, axis, parts in needs:
        if size % parts:
            raise ValueError(
                f"{name} = {size} is not divisible by the mesh's {axis} = {parts}: change one of "
                "them"
            )


def check_scorable(problems: Problems, settings: RunSettings) -> None:
    """Raises ValueError for an answer that its verifier cannot read, and for a verifier assigned to
    a source that no problem has.
    """
    known = (*problems.train.known_problems, *problems.held_out)
    check_answers(known, settings.reward.scoring)
    sources = {one.source for one in known} | {task.name for task in settings.problems.tasks}
    check_sources(sources, settings.reward.scoring)
