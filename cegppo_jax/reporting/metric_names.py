"""The table of all metrics, one line each, and the glossary generated from it.

python -m cegppo_jax.reporting.metric_names > experiments/METRICS.md      writes the glossary
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable

# Name, unit, healthy values, meaning; at least two spaces between them. A mean over tokens is one
# sum over one count: every completion token of all the step's updates, each once, whatever its
# weight in the loss. Only update/loss and budget/* contain the loss's weights. Groups add up:
# drawn + carried_in = trained + all dropped + carried_out (rollout/selection.py).
TABLE = """
reward/mean                      reward         rises, with noise                               mean reward of the step's completions
reward/std_within_group_mean     reward         well above 0                                    standard deviation of reward within a group, mean over groups
reward/correct_fraction          share          rises; 0.2 to 0.8 teaches most                  completions whose answer is correct
reward/wrong_fraction            share          falls                                           completions whose answer was read and is wrong
reward/unparsed_fraction         share          near 0 after the first steps                    completions from which no answer could be read
reward/timed_out_fraction        share          near 0                                          completions whose verifier was killed at reward.pool.timeout_seconds
reward/crashed_fraction          share          0                                               completions whose verifier raised an error or died
reward/pool_retries              completions    0                                               completions tried again because the process that verified them died
reward/pool_restarts             processes      0                                               worker processes killed or dead, and replaced, in the step's rollout
reward/uniform_group_fraction    share          below 0.5                                       groups whose G rewards are all equal: advantage 0, no gradient
reward/kl_penalty_mean           reward         small compared with the rewards                 what the KL to the reference takes off a completion's reward, mean (loss.kl_place = 'reward')
reward/overlong_masked_fraction  share          0 unless reward.overlong_policy = 'mask'        trained groups' completions that do not train because they reached the limit

update/loss                      advantage      no target: its gradient matters, its value hardly does  value of the loss, mean over the step's updates

policy/entropy                   nats           falls slowly and stays above 0; a fall to 0 is collapse, a steady rise is drift to noise  exact entropy of the policy's next-token distribution, mean over completion tokens
policy/old_entropy               nats           as policy/entropy                               exact entropy of the policy that old log-probs are of, mean over completion tokens that train: before the step's first update, or with batch.rollout_lag_steps = 1 when they were drawn
policy/rollout_entropy           nats           as policy/entropy                               the same over all completions drawn in the step, whether they train or not, and over no carried ones: what steering reads; left out when groups do not train and nothing reads it
policy/entropy_change            nats           near 0, of the sign of budget/mean              entropy now - entropy of the policy that old log-probs are of, same tokens, mean over the step's updates
policy/clip_fraction_low         share          1e-4 to 1e-2; 0 with one update a rollout       completion tokens left of the interval, of all that train: ratio < 1 - clip_low and A < 0; each token counts once, whatever the loss weighs it
policy/clip_fraction_high        share          1e-4 to 1e-2; 0 with one update a rollout       completion tokens right of the interval, of all that train: ratio > 1 + clip_high and A > 0; each token counts once, whatever the loss weighs it
policy/clip_count_low            tokens         see the fraction                                numerator of policy/clip_fraction_low, exact
policy/clip_count_high           tokens         see the fraction                                numerator of policy/clip_fraction_high, exact
policy/ratio_max                 ratio          below 10                                        largest policy / old probability of a completion token
policy/ratio_min                 ratio          above 0.01                                      smallest policy / old probability of a completion token
policy/kl_old                    nats           below 0.01; growth within few steps: learning rate or updates a rollout too high  KL(old || policy) by k3 = ratio - 1 - ln ratio, mean over completion tokens
policy/lag_log_ratio_mean        nats           below 0.01; above: fewer updates a rollout, or batch.rollout_lag_steps = 0  |ln policy / old| before the step's first update, mean over its mini-batch's tokens that train: how far the policy has moved since it drew them (batch.rollout_lag_steps = 1)
policy/lag_ess_fraction          share          near 1; below 0.9: as above                     (sum of ratios)^2 / (tokens x sum of their squares), of the same ratios: the share of tokens that count, if importance sampling used them (batch.rollout_lag_steps = 1)
policy/sampler_gap_mean          nats           below 1e-4 in fp32, below 0.02 in bf16          |old_logprobs - sampler_logprobs|, mean over completion tokens; with carried groups also what the policy has moved since they were drawn
policy/sampler_gap_max           nats           below 1e-2 in fp32, below 1 in bf16             |old_logprobs - sampler_logprobs|, largest
policy/sampler_kl                nats           below 1e-3                                      KL(sampler || old) by k3, mean over completion tokens
policy/sampler_ratio_q001        ratio          above 0.9 in fp32                               old / sampler probability, its 0.1 % quantile over completion tokens
policy/sampler_ratio_q50         ratio          1                                               old / sampler probability, its median over completion tokens
policy/sampler_ratio_q999        ratio          below 1.1 in fp32                               old / sampler probability, its 99.9 % quantile over completion tokens
policy/correction_mean           weight         near 1                                          weight that the mismatch correction gives a completion token, mean
policy/correction_zero_fraction  share          near 0                                          completion tokens that the mismatch correction masks
policy/kl_ref                    nats           rises slowly                                    KL(policy || reference) by loss.kl_estimator, mean over completion tokens, each once, whatever the loss weighs it (loss.kl_place = 'loss')
policy/dual_clip_count           tokens         near 0                                          tokens whose gradient the dual clip removed (wrapper dual_clip)
policy/entropy_ratio_count       tokens         0.2 of them in arXiv 2512.05591                 tokens outside the entropy-ratio interval (wrapper entropy_ratio)
policy/low_entropy_count         tokens         1 - top_entropy_fraction of them                tokens that do not train as too certain (wrapper top_entropy)
policy/not_preserved_count       tokens         1 - preserve_probability of the clipped ones    clipped tokens whose draw dropped them (wrapper stochastic_preservation)
policy/covariance_count          tokens         covariance_fraction of them                     tokens selected by their covariance (clip_cov, kl_cov)
policy/divergence_mask_count     tokens         few                                             tokens outside the trust region on probabilities (dppo_*)

budget/mean                      nats           below 0: entropy is pushed down                 change of entropy that the surrogate's gradients ask for, per unit of step: sum over completion tokens that train of each one's, times its weight in the loss and its mismatch correction, mean over the step's updates (cegppo_jax/losses/entropy_budget.py); LM loss, KL and entropy bonus are not in it
budget/pa_hp                     nats           below 0                                         the part of budget/mean of tokens with A > 0 and high probability
budget/pa_hp_tokens              tokens         no target                                       number of tokens with A > 0 and high probability
budget/pa_lp                     nats           above 0                                         the part of budget/mean of tokens with A > 0 and low probability
budget/pa_lp_tokens              tokens         no target                                       number of tokens with A > 0 and low probability
budget/na_hp                     nats           above 0                                         the part of budget/mean of tokens with A < 0 and high probability
budget/na_hp_tokens              tokens         no target                                       number of tokens with A < 0 and high probability
budget/na_lp                     nats           below 0                                         the part of budget/mean of tokens with A < 0 and low probability
budget/na_lp_tokens              tokens         no target                                       number of tokens with A < 0 and low probability
budget/inside                    nats           no target                                       the part of budget/mean of tokens that are not clipped, whatever their ratio
budget/inside_tokens             tokens         no target                                       number of tokens that are not clipped, whatever their ratio
budget/left                      nats           below 0; 0 without their gradient               the part of budget/mean of clipped tokens left of it: what beta_low scales
budget/left_tokens               tokens         no target                                       number of clipped tokens left of it: what beta_low scales
budget/right                     nats           above 0; 0 without their gradient               the part of budget/mean of clipped tokens right of it: what beta_high scales
budget/right_tokens              tokens         no target                                       number of clipped tokens right of it: what beta_high scales
budget/predicted_change          nats           of the sign of budget/measured_change; its size means nothing  sum of learning rate x budget/mean over the updates that budget/measured_change is of, each on its own tokens: first order, as if the policy were a table and the optimizer plain gradient ascent
budget/measured_change           nats           near 0                                          change of entropy since before the step's first update. In steps of logging.entropy_change_every_steps: after all its updates, mean over all its tokens that train. Else, with two updates or more and batch.rollout_lag_steps = 0: just before the last, on that one's tokens

steering/beta_low                weight         within its bounds                               beta_low of the step's updates
steering/beta_high               weight         within its bounds                               beta_high of the step's updates
steering/entropy_coef            weight         within its bounds                               coefficient of the entropy bonus in the step's updates
steering/alarm                   sign           0                                               entropy outside the guard's limits for too long: -1 too low, 1 too high
steering/rollbacks               rollbacks      0                                               rollbacks so far

update/grad_norm                 norm           steady; spikes are cut by the clipping of the norm  global norm of the gradient before clipping, mean over the step's updates
update/grad_norm_max             norm           within 10 x update/grad_norm                    largest gradient norm of the step's updates
update/learning_rate             per update     follows the schedule                            learning rate, mean over the step's updates
update/skipped                   updates        0                                               updates left out because their gradient was not finite
update/num_updates               updates        as configured                                   updates in the step
update/microbatches              micro-batches  follows length                                  micro-batches in use, summed over the step's updates

rollout/completion_tokens_mean   tokens         well below the limit                            mean length of a completion, its EOS included
rollout/completion_tokens_max    tokens         at or below the limit                           length of the longest completion
rollout/truncated_fraction       share          below 0.1                                       completions ended by the length limit
rollout/preempted_samples        samples        0, or few beside rollout/completions            samples that gave up their slots because the pages of a paged cache ran out, and were drawn again (sampler.pages)
rollout/completions              completions    P x G                                           completions drawn in the step
rollout/tokens_per_second        tokens/s       steady                                          completion tokens a second, from the first to the last one drawn
rollout/groups_drawn             groups         P, or as few as fill the step                   groups drawn in the step, refills included
rollout/groups_carried_in        groups         no target                                       useful groups that earlier steps left for this one (carry_over)
rollout/groups_useful            groups         half of those drawn, or more                    groups drawn whose share of right completions lies between batch.accuracy_low and accuracy_high, whether they train or not
rollout/groups_trained           groups         P, or batch.trained_prompts                     groups that the step's updates read; 0 in the step of a rollback
rollout/groups_dropped_too_easy  groups         few; many: harder prompts, or batch.prompt_weighting = 'difficulty'  groups dropped because too many of their completions are right
rollout/groups_dropped_too_hard  groups         few; many: easier prompts, or batch.prompt_weighting = 'difficulty'  groups dropped because too few of their completions are right
rollout/groups_dropped_unjudged  groups         0                                               groups dropped because no verifier could judge any of their completions
rollout/groups_dropped_surplus   groups         few; many: a smaller batch.refill_prompts, or carry_over  useful groups dropped because the step was full, or they did not fill a mini-batch
rollout/groups_dropped_stale     groups         0                                               useful groups dropped because they would get older than batch.max_staleness_steps (carry_over), or because a rollback left their policy behind
rollout/groups_carried_out       groups         below batch.prompts                             useful groups left for the next step (carry_over)
rollout/refill_rounds            rounds         below batch.max_refills                         further draws because useful groups were missing
rollout/starved                  1 or 0         0                                               1: fewer groups could train than batch.trained_prompts
rollout/staleness_mean_steps     steps          0 or 1, or below 1 with carry_over; policy/sampler_gap_mean then sees it as well  steps between the policy that drew a group and the one whose updates train on it, mean over those that train; 1 with batch.rollout_lag_steps = 1, but in a run's first step

difficulty/problems              problems       up to batch.difficulty's capacity               problems whose success is estimated
difficulty/success_q10           share          above 0.1                                       estimated success of a problem, 10 % quantile over problems
difficulty/success_q50           share          0.2 to 0.8 teaches most                         the same, median
difficulty/success_q90           share          below 0.9                                       the same, 90 % quantile
difficulty/skipped_fraction      share          0 without weighting; near 1 - least_weight: little is left to learn  prompts skipped because they look useless, of those that fit (batch.prompt_weighting)

rollout/prompts_skipped          prompts        0                                               prompts skipped because they are longer than the limit

packing/efficiency               share          above 0.8                                       tokens in use / tokens of the rows in use

evaluation/accuracy              share          rises                                           held-out accuracy
evaluation/accuracy_low          share          above the first evaluation's upper end          lower end of its 95 % interval
evaluation/accuracy_high         share          rises                                           upper end of its 95 % interval
evaluation/pass_at_n             share          rises, or at least does not fall                share of held-out problems that at least one of evaluation.samples_per_problem samples solves (pass@n)

supervised/loss                  nats           falls, then flattens                            next-token cross-entropy, mean over solution tokens
supervised/entropy               nats           falls with the loss; RL starts from here, so not to 0  exact entropy of the next-token distribution, mean over solution tokens

time/rollout_seconds             s              the largest part                                sampling of the rollout that trains, also where the step before has drawn it (batch.rollout_lag_steps = 1)
time/score_seconds               s              small compared with sampling                    time that scoring takes between samples: texts are decoded and handed to the verifiers, or verified at once when reward.pool.workers is 0
time/score_wait_seconds          s              near 0                                          waiting for scores after the last sample, or with batch.rollout_lag_steps = 1 after that of the next rollout
time/old_logprobs_seconds        s              at most a third of time/update_seconds          old_logprobs of the rollout, and its packing; with batch.rollout_lag_steps = 1 its packing alone, since the devices compute old_logprobs of the next one meanwhile
time/update_seconds              s              steady                                          all updates of the step
time/step_seconds                s              steady                                          whole step: the sum of its parts and the time between them
time/evaluation_seconds          s              steady                                          held-out evaluation
"""

# Names that are not in the table: a user's own.
OWN_NAMES = re.compile(r"(policy/[\w./@:-]+_count|user/[\w./@:-]+)", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Metric:
    """The meaning of one metric."""

    unit: str
    healthy: str
    meaning: str

    @property
    def clock(self) -> bool:
        """Whether it reads a clock (seconds, or a rate), so that a resumed run does not repeat
        it.
        """
        return self.unit.split("/")[-1] == "s"


def _read_table(table: str) -> dict[str, Metric]:
    rows = (re.split(r"\s{2,}", line) for line in table.splitlines() if line)
    return {name: Metric(*texts) for name, *texts in rows}


METRICS = _read_table(TABLE)


def check_names(names: Iterable[str]) -> None:
    """Refuses names that are neither in the table nor of a form reserved for users.

    Raises:
        ValueError: with the unknown name and the nearest one of the table.
    """
    for name in names:
        if name in METRICS or OWN_NAMES.fullmatch(name):
            continue
        # By spelling first, then by the last part, since a wrong prefix is a common slip.
        near = difflib.get_close_matches(name, METRICS, n=1) or [
            known for known in METRICS if known.split("/")[-1] == name.split("/")[-1]
        ]
        hint = f"did you mean {near[0]!r}?" if near else "no declared name is near it."
        raise ValueError(
            f"unknown metric {name!r}: {hint} Names are those of metric_names.py, and for numbers "
            "of your own policy/<name>_count and user/<name>."
        )


def glossary() -> str:
    """Returns the Markdown page experiments/METRICS.md, generated from the table."""
    clocks = ",\n".join(f"`{name}`" for name, metric in METRICS.items() if metric.clock)
    head = f"""# Metrics

Every name that a run writes to `metrics.jsonl` and its other writers (`logging.writers`:
TensorBoard, Weights & Biases). This page is generated from the table in
`cegppo_jax/reporting/metric_names.py`: `python -m cegppo_jax.reporting.metric_names > experiments/METRICS.md`.

A line is one step: `phase` (`supervised` or `rl`), `step` (from 0 in each phase), then the names
that were measured in it. `null` is a value that was not finite. A mean over tokens is one sum over
one count: every completion token of all the step's updates, each once, whatever its weight in the
loss. Only `update/loss` and `budget/*` contain the loss's weights. A resumed run writes what an
uninterrupted one writes, except for the readings of a clock:
{clocks}.

**Your own numbers** need no row here. A method's events, masks that it returns as
`SurrogateTerms(..., events={{"far_left": mask}})`, are counted over the tokens that train and written
as `policy/far_left_count`. Its per-token values, `SurrogateTerms(..., measured={{"margin": values}})`,
are averaged over the same tokens and written as `user/margin`. A loop that you write yourself may
give `user/<name>` any number. Every other name is an error that suggests the nearest one.

| name | unit | meaning | healthy |
|---|---|---|---|
"""
    cells = ((f"`{name}`", m.unit, m.meaning, m.healthy) for name, m in METRICS.items())
    escaped = ([cell.replace("|", "\\|") for cell in row] for row in cells)
    return head + "".join(f"| {' | '.join(row)} |\n" for row in escaped)


if __name__ == "__main__":
    print(glossary(), end="")
