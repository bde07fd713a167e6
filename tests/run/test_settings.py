"""Settings: each knob of configs/base.py is a field and each field a knob; bad values are named."""

import ast
import dataclasses
import importlib
import operator
from pathlib import Path

import pytest
import tiny_recipe

import cegppo_jax
import configs
from cegppo_jax.losses.settings import built_in_numbers
from cegppo_jax.read_settings import setting_names
from cegppo_jax.run.settings import RunSettings, read_settings
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.sharding import MeshShape
from cegppo_jax.types import Outcome
from configs import base, presets, r1_distill_qwen_1p5b

# put on recipes; evaluated and not trained
NO_RECIPES = {"__init__", "presets", "paper_scale", "math_evaluation", "gsm8k_evaluation"}
RECIPES = sorted({path.stem for path in Path(configs.__file__).parent.glob("*.py")} - NO_RECIPES)


def flat_names(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat_names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def tiny(**changes):
    """The tiny recipe's config with values changed by dotted name, "/" for the dot."""
    config = tiny_recipe.get_config()
    config.update_from_flattened_dict({n.replace("/", "."): v for n, v in changes.items()})
    return config


def test_every_knob_is_a_field_and_every_field_a_knob():
    assert sorted(flat_names(base.get_config().to_dict())) == sorted(setting_names(RunSettings))


def test_every_knob_is_read():
    """Its name occurs as an attribute that some code reads: a knob that nothing reads lies."""
    modules = [
        ast.parse(path.read_text()) for path in Path(cegppo_jax.__file__).parent.rglob("*.py")
    ]
    read = {
        node.attr
        for module in modules
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    knobs = {name.split(".")[-1] for name in setting_names(RunSettings)}
    as_a_tuple = {"data", "fsdp", "tensor"}  # in sharding.py
    assert knobs - read <= as_a_tuple | set(Outcome)  # rewards: by the outcome's name


def test_settings_hold_the_config_s_values():
    config = tiny_recipe.get_config()
    settings = read_settings(config)
    values = dataclasses.asdict(settings)
    values["loss"] |= values["loss"].pop("numbers")
    assert values["problems"]["fields"] == (("layout", "plain"),)  # "plain"
    values["problems"]["fields"] = config.problems.fields
    assert values == config.to_dict()
    assert settings.mesh == MeshShape(-1, 1, 1)
    assert settings.sampler.cache_read_ladder == (10,)
    assert settings.evaluation.sampling == SamplingFilter(temperature=1.0, top_k=0, top_p=1.0)
    assert hash(settings) == hash(read_settings(tiny_recipe.get_config()))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_loads_in_every_variant_and_stays_locked(name):
    recipe = importlib.import_module(f"configs.{name}")
    variants = [(name,) for name in getattr(recipe, "VARIANTS", {})]
    for arguments in [(), *variants]:
        config = recipe.get_config(*arguments)
        assert config.is_locked
        assert read_settings(config).steps > 0


def test_variants_of_the_quickstart_change_the_method_alone():
    quickstart = importlib.import_module("configs.quickstart")
    own = read_settings(quickstart.get_config())
    grpo = read_settings(quickstart.get_config("grpo"))
    gppo = read_settings(quickstart.get_config("gppo"))
    assert grpo == dataclasses.replace(
        own, loss=dataclasses.replace(own.loss, surrogate="ppo_clip")
    )
    assert gppo == dataclasses.replace(own, loss=dataclasses.replace(own.loss, surrogate="gppo"))


PAPER_VARIANTS = [(method, source) for method in presets.METHODS for source in presets.SOURCES]


@pytest.mark.parametrize(("method", "source"), PAPER_VARIANTS, ids="-".join)
def test_the_paper_s_recipe_loads_with_every_method(method, source):
    """As it says: `:<method>` or `:<method>_official`."""
    variant = method if source == "paper" else f"{method}_official"
    config = r1_distill_qwen_1p5b.get_config(variant)
    assert config.is_locked
    settings = read_settings(config)
    assert settings.batch.updates == 8
    for name, value in {**presets.METHODS[method], **presets.SOURCES[source]}.items():
        section, _, last = name.rpartition(".")
        found = operator.attrgetter(section)(settings) if section else settings
        numbers = getattr(found, "numbers", {})
        assert (numbers[last] if last in numbers else getattr(found, last)) == value, name


def test_without_a_name_the_paper_s_recipe_is_its_own_method():
    own = r1_distill_qwen_1p5b.get_config()
    assert own == r1_distill_qwen_1p5b.get_config("ce_gppo_1p5b")


@pytest.mark.parametrize("arguments", [("ce_gpo",), ("grpo", "offical")])
def test_an_unknown_preset_is_an_error(arguments):
    with pytest.raises(ValueError, match=rf"no preset '{arguments[-1]}'; there are \["):
        presets.put(base.get_config(), *arguments)


def test_presets_put_one_after_the_other_leave_nothing_of_the_first():
    """Else a sweep over methods would depend on its order."""

    def put(*names):
        config = base.get_config()
        for method, source in names:
            presets.put(config, method, source)
        return config

    for last in PAPER_VARIANTS:
        alone = put(last)
        for first in PAPER_VARIANTS:
            after = put(first, last)
            for name in presets.SHARED.keys() | presets.METHODS[last[0]].keys():
                section, _, key = name.rpartition(".")
                one, other = alone, after
                for part in section.split("."):
                    one, other = one[part], other[part]
                assert one[key] == other[key], (first, last, name)


def test_an_unknown_variant_is_an_error():
    quickstart = importlib.import_module("configs.quickstart")
    message = r"no variant 'grop' in this recipe; it has \['gppo', 'grpo'\]"
    with pytest.raises(ValueError, match=message):
        quickstart.get_config("grop")


def test_arithmetic_in_words():
    assert read_settings(tiny(steps=200)).arithmetic() == (
        "8 prompts x 4 samples = 32 completions a step, "
        "2 updates of 4 x 4 = 16 completions each; "
        "200 steps = 6,400 completions and 400 updates"
    )


def test_arithmetic_of_steps_that_refill():
    changes = {"batch/refill_prompts": 2, "batch/max_refills": 3}
    words = read_settings(tiny(**changes, **{"batch/dynamic_sampling": "refill"})).arithmetic()
    assert words.startswith(
        "up to 14 prompts x 4 samples = 56 completions a step, at most 2 updates of"
    )
    assert words.endswith("6 steps = up to 336 completions and 12 updates")


def test_a_whole_number_is_read_as_a_float_where_one_is_asked_for():
    config = tiny_recipe.get_config().unlock()
    config.loss = config.loss.to_dict() | {"beta_low": 1}
    value = read_settings(config).loss.numbers["beta_low"]
    assert (value, type(value)) == (1.0, float)


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("seed", 1.5, "config.seed = 1.5 is of type float, not int"),
        ("steps", "6", "config.steps = '6' is of type str, not int"),
        ("steps", True, "config.steps = True is of type bool, not int"),
        ("model.rope_theta", True, "config.model.rope_theta = True is of type bool, not float"),
        ("model.tied_embeddings", 1, "config.model.tied_embeddings = 1 is of type int, not bool"),
        ("loss.surrogate", 3, "config.loss.surrogate = 3 is of type int, not str"),
        ("mesh", 8, "config.mesh = 8 is not a section of settings"),
        (
            "sampler.cache_read_ladder",
            (7, 13.0),
            "config.sampler.cache_read_ladder[1] = 13.0 is of type float, not int",
        ),
        ("optimizer.betas", (0.9, 0.95), "config.optimizer.betas is not a setting: did you mean"),
        ("loss.beta_lo", 1.0, "config.loss.beta_lo is not a setting: did you mean 'beta_low'?"),
        ("loss.zzz", 1.0, "config.loss.zzz is not a setting; it has ['aspo_cap',"),
        (
            "steering.guard.flor",
            0.1,
            "config.steering.guard.flor is not a setting: did you mean 'floor'?",
        ),
        ("steering.controller", True, "config.steering.controller = True is not a section of"),
        (
            "steering.beta_schedule.beta_low",
            (0, "1"),
            "config.steering.beta_schedule.beta_low[1] = '1' is of type str, not float",
        ),
        ("loss.wrappers", ("dual_clip", 3), "config.loss.wrappers[1] = 3 is of type int, not str"),
    ],
)
def test_a_value_of_another_type_and_an_unknown_name_are_errors(section, value, message):
    """In a ConfigDict that was unlocked, or was not made by configs/base.py."""
    values = tiny_recipe.get_config().to_dict()
    *folders, name = section.split(".")
    place = values
    for folder in folders:
        place = place[folder]
    place[name] = value
    with pytest.raises(ValueError) as raised:
        read_settings(AsConfig(values))
    assert str(raised.value).startswith(message)


class AsConfig(dict):
    """A dict with the one method of a ConfigDict that is used."""

    def to_dict(self):
        return dict(self)


def test_a_missing_knob_is_an_error():
    values = tiny_recipe.get_config().to_dict()
    del values["loss"]["aggregation"], values["loss"]["kl_place"]
    message = (
        r"config\.loss lacks \['aggregation', 'kl_place'\]: start recipes from configs/base.py"
    )
    with pytest.raises(ValueError, match=message):
        read_settings(AsConfig(values))


INFINITE = float("inf")

AT_LEAST_0 = [name for name, number in built_in_numbers().items() if number.at_least == 0]
AT_LEAST = {
    0: (
        "steps",
        *(f"loss/{name}" for name in AT_LEAST_0),
        *("advantage/std_epsilon", "reward/overlong_penalty"),
        *("steering/controller/proportional_gain", "steering/controller/integral_gain"),
        *("steering/guard/floor", "steering/guard/beta_step", "steering/guard/max_rollbacks"),
        *(f"steering/entropy_bonus/{name}" for name in ("coef", "target", "step", "coef_min")),
        *("warm_start/steps", "evaluation/every_steps"),
        *("batch/max_refills", "batch/accuracy_low"),
        *(f"batch/difficulty/{name}" for name in ("capacity_problems", "decay", "prior_samples")),
        *("logging/samples_every_steps", "logging/samples_groups"),
        *("logging/samples_tokens", "logging/entropy_change_every_steps"),
    ),
    1: (
        *("model/width", "model/layers", "model/heads", "model/kv_heads", "model/head_size"),
        *("model/mlp_width", "batch/prompts", "batch/samples_per_prompt"),
        *("batch/trained_prompts", "batch/minibatch_prompts"),
        *("batch/row_tokens", "batch/rows_per_microbatch"),
        *("batch/refill_prompts", "batch/max_staleness_steps"),
        *("loss/emulated_microbatch_sequences", "advantage/pass_k", "mismatch/cap"),
        "steering/guard/patience_steps",
        *("sampler/max_prompt_tokens", "sampler/max_completion_tokens", "sampler/chunk_steps"),
        *("trainer/scan_unroll", "trainer/logprob_chunk_tokens"),
        *("warm_start/sequences", "warm_start/rows_per_microbatch"),
        *("evaluation/problems", "evaluation/samples_per_problem"),
        *("checkpoint/every_steps", "checkpoint/keep"),
    ),
}


@pytest.mark.parametrize(
    ("minimum", "name"), [(minimum, name) for minimum, names in AT_LEAST.items() for name in names]
)
def test_numbers_below_their_minimum_are_errors(minimum, name):
    field = name.split("/")[-1]
    with pytest.raises(ValueError, match=rf"{field} = {minimum - 1}(\.0)?\b.*at least {minimum}"):
        read_settings(tiny(**{name: minimum - 1}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch/prompts": 6, "batch/trained_prompts": 6}, "batch.trained_prompts = 6 is not a "
         "multiple of batch.minibatch_prompts = 4: 2 prompts would be left over"),
        ({"batch/trained_prompts": 12}, "batch.trained_prompts = 12 exceeds batch.prompts = 8: "
         "more cannot train than are drawn"),
        ({"batch/prompts": 4, "batch/dynamic_sampling": "filter"}, "batch.trained_prompts = 8 "
         "exceeds batch.prompts = 4"),
        ({"batch/trained_prompts": 4}, "batch.trained_prompts = 4 of batch.prompts = 8 with "
         "batch.dynamic_sampling = 'none': the others would be drawn for nothing"),
        ({"batch/dynamic_sampling": "refill", "batch/prompts": 2, "batch/refill_prompts": 1},
         "batch.trained_prompts = 8 exceeds batch.prompts = 2 + 4 refills of 1"),
        ({"batch/prompt_weighting": "hard"}, "batch.prompt_weighting = 'hard' does not exist: "),
        ({"batch/prompt_weighting": "difficulty", "batch/difficulty/capacity_problems": 0},
         "capacity_problems = 0: nothing would be remembered"),
        ({"batch/admission": "shortest"}, "batch.admission = 'shortest' does not exist: "),
        ({"batch/admission": "longest_first", "batch/difficulty/capacity_problems": 0},
         "batch.admission = 'longest_first' with batch.difficulty.capacity_problems = 0"),
        ({"batch/accuracy_low": 0.3, "batch/accuracy_high": 0.4}, "batch.accuracy_low = 0.3, "
         "batch.accuracy_high = 0.4: from 0 to 1, and so that some share k / "
         "batch.samples_per_prompt = k / 4 lies between"),
        ({"batch/accuracy_high": 1.5}, "batch.accuracy_high = 1.5: from 0 to 1"),
        ({"batch/accuracy_high": float("nan")}, "batch.accuracy_high = nan: a finite number"),
        ({"batch/dynamic_sampling": "filtered"}, "batch.dynamic_sampling = 'filtered' does not "
         "exist: did you mean 'filter'?"),
        ({"batch/samples_per_prompt": 1}, "a group of one has no advantage over itself"),
        ({"batch/row_tokens": 13, "trainer/logprob_chunk_tokens": 13}, "batch.row_tokens = 13 "
         "cannot hold the longest prompt + completion, 5 + 9 = 14 tokens"),
        ({"trainer/logprob_chunk_tokens": 12}, "trainer.logprob_chunk_tokens = 12 does not divide "
         "batch.row_tokens = 32"),
        ({"sampling/top_p": 0.9}, "policy gradients need every token to keep its softmax"),
        ({"sampling/top_k": 5}, "policy gradients need every token to keep its softmax"),
        ({"sampling/temperature": 0.0}, "policy gradients need every token to keep its softmax"),
        ({"loss/surrogate": "cegppo"}, "loss.surrogate = 'cegppo' does not exist: did you mean "
         "'ce_gppo'? There are ["),
        ({"loss/wrappers": ("dual_clip", "top_entrop")}, "loss.wrappers = 'top_entrop' does not "
         "exist: did you mean 'top_entropy'? There are ["),
        ({"loss/wrappers": ("dual_clip", "dual_clip")}, "each at most once"),
        ({"loss/aggregation": "sequence_men"}, "loss.aggregation = 'sequence_men' does not exist: "
         "did you mean 'sequence_mean'? There are ["),
        ({"loss/high_probability": "halve"}, "loss.high_probability = 'halve' does not exist: did "
         "you mean 'half'?"),
        ({"loss/kl_place": "los"}, "loss.kl_place = 'los' does not exist: did you mean 'loss'?"),
        ({"loss/kl_estimator": "k4"}, "loss.kl_estimator = 'k4' does not exist: "),
        *(({"loss/kl_place": "reward", "loss/kl_coef": 0.1, "loss/kl_estimator": name},
           f"loss.kl_estimator = '{name}' with loss.kl_place = 'reward': ")
          for name in ("k2", "k3")),
        ({"loss/kl_place": "loss", "loss/kl_coef": 0.1, "loss/kl_estimator": "k1"},
         "loss.kl_estimator = 'k1' with loss.kl_place = 'loss': "),
        ({"loss/kl_coef": 0.1}, "loss.kl_coef = 0.1 with loss.kl_place = 'none': name the place"),
        ({"loss/dual_clip": 0.0}, "loss.dual_clip = 0.0: above 0"),
        ({"loss/gate_negative": 0.0}, "loss.gate_negative = 0.0: above 0"),
        ({"loss/preserve_probability": 0.0}, "loss.preserve_probability = 0.0: above 0"),
        ({"loss/preserve_probability": 1.5}, "loss.preserve_probability = 1.5: at most 1"),
        ({"loss/top_entropy_fraction": 2.0}, "loss.top_entropy_fraction = 2.0: at most 1"),
        ({"loss/covariance_fraction": 2.0}, "loss.covariance_fraction = 2.0: at most 1"),
        ({"loss/kl_coef": float("nan"), "loss/kl_place": "loss"}, "loss.kl_coef = nan"),
        ({"advantage/estimator": "group_men"}, "advantage.estimator = 'group_men' does not exist: "
         "did you mean 'group_mean'?"),
        ({"advantage/std_ddof": 2}, "advantage.std_ddof = 2: "),
        ({"advantage/estimator": "pass_at_k", "advantage/pass_k": 5}, "advantage.pass_k = 5 "
         "exceeds the 4 samples of a group"),
        ({"advantage/estimator": "max_rl"}, "rewards must be at least 0"),
        ({"mismatch/correction": "token_trunc"}, "mismatch.correction = 'token_trunc' does not "
         "exist: did you mean 'token_truncate'?"),
        ({"mismatch/low": 1.5}, "mismatch.low = 1.5, mismatch.high = 5.0: 0 <= low <= 1 <= high"),
        ({"reward/overlong_policy": "masked"}, "reward.overlong_policy = 'masked' does not exist: "
         "did you mean 'mask'?"),
        ({"reward/overlong_policy": "soft_penalty"}, "reward.overlong_buffer_tokens = 4096: from 1 "
         "to sampler.max_completion_tokens = 9"),
        ({"steering/beta_schedule/kind": "cosin"}, "steering.beta_schedule.kind = 'cosin' does not "
         "exist: did you mean 'cosine'?"),
        ({"steering/beta_schedule/kind": "linear"}, "steering.beta_schedule.kind = 'linear', steps "
         "= (): every kind but 'constant' has knots"),
        ({"steering/controller/enabled": True, "loss/beta_low": 2.5}, "leave out the base "
         "Betas(low=2.5, high=1.0)"),
        ({"steering/controller/enabled": True, "steering/controller/beta_high_max": 0.5},
         "leave out the base Betas(low=0.5, high=1.0): move either"),
        ({"steering/controller/enabled": True, "steering/beta_schedule/kind": "piecewise",
          "steering/beta_schedule/steps": (3,), "steering/beta_schedule/beta_low": (0.5,),
          "steering/beta_schedule/beta_high": (3.0,)},
         "leave out the base Betas(low=0.5, high=3.0): move either"),
        ({"steering/guard/floor": 2.0, "steering/guard/ceiling": 1.0},
         "steering.guard.floor = 2.0, ceiling = 1.0: floor < ceiling"),
        ({"reward/verifier": "final"}, "reward.verifier = 'final' does not exist: "),
        ({"reward/verifier": "no.module:f"}, "reward.verifier = 'no.module:f': module 'no.module' "
         "cannot be imported"),
        ({"reward/scope": "after_thinking"}, "reward.scope = 'after_thinking' does not exist: did "
         "you mean 'after_think'?"),
        ({"reward/scope": "boxed_only"}, "reward.verifier = 'final_answer' finds no answer in "
         "reward.scope = 'boxed_only': it reads full and after_think"),
        ({"reward/by_source": ("gsm8k",)}, "reward.by_source[0] = 'gsm8k': expected 'name=value'"),
        ({"reward/by_source": ("a=maths",)}, "reward.by_source = 'maths' does not exist: did you "
         "mean 'math'?"),
        ({"reward/by_source": ("a=math", "a=gsm8k")}, "names ['a'] more than once"),
        ({"reward/bonuses": ("format",)}, "reward.bonuses[0] = 'format': expected 'name=value'"),
        ({"reward/bonuses": ("formats=0.1",)}, "reward.bonuses = 'formats' does not exist: "),
        ({"reward/bonuses": ("format=0",)}, "reward.bonuses[0] = 'format=0': weight = 0.0"),
        ({"reward/bonuses": ("format=nan",)}, "reward.bonuses[0] = 'format=nan': "),
        ({"reward/bonuses": ("format=1.5",)}, "reward.bonuses add up to 1.5"),
        ({"reward/verifier": "tests.rewards.own_verifiers:right", "reward/pool/workers": 0},
         "reward.pool.workers = 0 with the verifiers ['tests.rewards.own_verifiers:right']: only "
         "['digit_sum', 'final_answer'] may run in the main process"),
        ({"reward/pool/workers": -2}, "reward.pool.workers = -2: at least -1"),
        ({"reward/pool/retries": -1}, "reward.pool.retries = -1: at least 0"),
        ({"reward/pool/memory_megabytes": -1}, "reward.pool.memory_megabytes = -1: at least 0"),
        ({"reward/pool/timeout_seconds": 0.0}, "reward.pool.timeout_seconds = 0.0: a positive"),
        ({"reward/pool/timeout_seconds": INFINITE}, "reward.pool.timeout_seconds = inf: a finite"),
        ({"reward/outcomes/crashed": 1.0}, "a correct answer must earn more than any other"),
        ({"problems/task": "", "problems/train": ("task:countdown:2-3",),
          "problems/held_out": ("task:countdown",)}, "reward.verifier = 'final_answer' cannot read "
         "the answers of problems.task = 'countdown': that is 'countdown' (in a mixture: "
         "reward.by_source = ('countdown=countdown',))"),
        ({"problems/task": "chess"}, "problems.task = 'chess' does not exist: There are ['chain"),
        ({"trainer/dtype": "float23"}, "trainer.dtype = 'float23' does not exist: did you mean "
         "'float32'? There are ['bfloat16', 'float32']"),
        ({"sampler/dtype": "half"}, "sampler.dtype = 'half' does not exist: There are ["),
        ({"optimizer/schedule": "step"}, "optimizer.schedule = 'step' does not exist: "),
        ({"loss/beta_low": float("nan")}, "loss.beta_low = nan"),
        # Negative betas pull clipped tokens back; only bounds of a controller may ask for them.
        ({"loss/beta_low": -1.0}, "loss.beta_low = -1.0, loss.beta_high = 1.0, of the run or of a "
         "knot of steering.beta_schedule: at least 0."),
        *(({"loss/kl_place": "loss", f"loss/{name}": INFINITE},
           f"loss.{name} = inf: a finite number")
          for name in ("kl_coef", "positive_lm_coef", "gate_positive", "decay_low", "beta_high")),
        ({"advantage/std_epsilon": INFINITE}, "advantage.std_epsilon = inf: a finite number"),
        ({"loss/covariance_low": 5.0}, "loss.covariance_low = 5.0 is not below loss.covariance_high"
         " = 5.0"),
        ({"loss/wrappers": ("stochastic_preservation", "top_entropy", "dual_clip")},
         "name dual_clip first"),
        ({"loss/surrogate": "gppo", "steering/controller/enabled": True}, "which loss.surrogate = "
         "'gppo' does not read: ['ce_gppo', 'ce_gspo'] do"),
        ({"loss/surrogate": "ppo_clip", "steering/guard/rollback": True}, "steering moves the betas"
         " (controller, beta_schedule, or guard.rollback with guard.beta_step > 0)"),
    ],
)  # fmt: skip
def test_contradictory_values_are_errors_with_their_numbers(changes, message):
    with pytest.raises(ValueError) as raised:
        read_settings(tiny(**changes))
    assert message in str(raised.value)


@pytest.mark.parametrize(("place", "estimator"), [("loss", "k3"), ("reward", "k1")])
def test_the_kl_s_estimator_is_its_place_s_own_unless_named(place, estimator):
    settings = read_settings(tiny(**{"loss/kl_place": place, "loss/kl_coef": 0.1}))
    assert settings.loss.kl_place_estimator == estimator


def test_k1_in_the_loss_may_be_measured():
    changes = {"loss/kl_place": "loss", "loss/kl_estimator": "k1", "loss/kl_coef": 0.0}
    assert read_settings(tiny(**changes)).loss.kl_place_estimator == "k1"
