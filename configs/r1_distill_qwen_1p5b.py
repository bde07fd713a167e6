"""Does CE-GPPO beat GRPO, DAPO, CISPO and GSPO on DeepSeek-R1-Distill-Qwen-1.5B, as arXiv
2509.20712 reports?

    cegppo train --config=configs/r1_distill_qwen_1p5b.py --workdir=runs/ce_gppo_1p5b
    for SET in aime24 aime25 hmmt25 amc23 math500; do
      cegppo evaluate --config=configs/math_evaluation.py:$SET --run=runs/ce_gppo_1p5b
    done

Variants: `:ce_gppo` (beta 0.5, 1), `:ce_gppo_schedule` (its Fig. 6), `:gppo`, `:grpo`, `:dapo`,
`:cispo`, `:gspo`, `:grpo_entropy_0p001`, `:grpo_entropy_0p003`; each with `_official` appended for
what the authors' code does in addition.

Hardware: parameters, gradients and Adam's moments are 28 GB in float32, the cache of 256 slots of
20,480 tokens 150 GB in bfloat16. On 4 TPU v5p chips (95 GB each, v5p:2x2x1) an earlier version was
planned to fit (cegppo_jax/planning/README.md); chips of 16 or 32 GB have not been shown to. The
paper used 16 nodes of 8 GPUs.
Time: not run. Others' re-run of the paper took 464 s a step (arXiv 2603.09803), 5.4 days for 1000.

Result to expect (Table 1, up to 1000 steps; AIME24, AIME25, HMMT25, MATH500, AMC23): before 29.2,
24.1, 13.1, 86.0, 73.7; GRPO 33.4, 28.1, 16.6, 88.3, 79.3; CE-GPPO 42.0, 33.9, 21.6, 91.0, 85.9.
"""

from ml_collections import ConfigDict

from configs import paper_scale

VARIANTS = paper_scale.VARIANTS


def get_config(variant: str = "ce_gppo") -> ConfigDict:
    """Returns the recipe for a method."""
    method = {"ce_gppo": "ce_gppo_1p5b", "ce_gppo_official": "ce_gppo_1p5b_official"}
    return paper_scale.get_config(
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", method.get(variant, variant)
    )
