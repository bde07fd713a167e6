"""Does CE-GPPO beat GRPO, DAPO, CISPO and GSPO on DeepSeek-R1-Distill-Qwen-7B, as arXiv 2509.20712
reports?

    cegppo train --config=configs/r1_distill_qwen_7b.py --workdir=runs/ce_gppo_7b

Variants: as configs/r1_distill_qwen_1p5b.py; `:ce_gppo` has the paper's betas for 7B, (0.75, 1).

Hardware: parameters, gradients and Adam's moments are 122 GB in float32, the cache of 256 slots of
20,480 tokens 300 GB in bfloat16. No hardware has been shown to hold it: ask `cegppo plan`. The
paper used 16 nodes of 8 GPUs.
Time: not run. Others' re-run of the paper took 293 s a step (arXiv 2603.09803), 3.4 days for 1000.

Result to expect (Table 1, up to 1000 steps; AIME24, AIME25, HMMT25, MATH500, AMC23): before 54.5,
39.1, 26.2, 93.6, 90.6; GRPO 55.3, 40.3, 24.5, 93.7, 88.8; CE-GPPO 66.0, 51.4, 30.5, 95.6, 93.8.
"""

from ml_collections import ConfigDict

from configs import paper_scale

VARIANTS = paper_scale.VARIANTS


def get_config(variant: str = "ce_gppo") -> ConfigDict:
    """Returns the recipe for a method."""
    method = {"ce_gppo": "ce_gppo_7b", "ce_gppo_official": "ce_gppo_7b_official"}
    return paper_scale.get_config(
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", method.get(variant, variant)
    )
