"""What does CE-GPPO add to GPPO, its predecessor's method, on the predecessor's model, Qwen3-8B?

    cegppo train --config=configs/qwen3_8b.py --workdir=runs/qwen3_8b
    cegppo train --config=configs/qwen3_8b.py:gppo --workdir=runs/qwen3_8b_gppo

The predecessor (Klear-Reasoner, arXiv 2508.07629) trained Qwen3-8B-Base on 1.5 M solutions first,
which are not public as a separate set. This recipe starts from Qwen3-8B in its thinking mode.
Variants: as configs/r1_distill_qwen_1p5b.py.

Hardware: parameters, gradients and Adam's moments are 131 GB in float32, the cache of 256 slots of
20,480 tokens 773 GB in bfloat16. No hardware has been shown to hold it: ask `cegppo plan`.
Time: not run, and no result is published for this start: the question is open.
"""

from ml_collections import ConfigDict

from configs import paper_scale

VARIANTS = paper_scale.VARIANTS


def get_config(variant: str = "ce_gppo") -> ConfigDict:
    """Returns the recipe for a method."""
    method = {"ce_gppo": "ce_gppo_7b", "ce_gppo_official": "ce_gppo_7b_official"}
    config = paper_scale.get_config("Qwen/Qwen3-8B", method.get(variant, variant))
    config.problems.template_options = (("enable_thinking", True),)
    return config
