"""Reinforcement learning of reasoning LLMs in JAX, around CE-GPPO (arXiv 2509.20712).

What `import cegppo_jax as cg` offers for use by hand is listed in `__all__` and described in
cegppo_jax/api/__init__.py. Names are imported when they are first used, so worker processes, which
need no jax, do not load it.
"""

import importlib
import os
import re
import signal
import sys
from typing import Any

__version__ = "0.2.0"

# transformers is used for its tokenizers; without this it advises at every start to install torch.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

_PLACES = {
    "Policy": "api.policy",
    "load": "api.loading",
    "save": "api.saving",
    "random_policy": "api.loading",
    "Samples": "api.samples",
    "Batch": "api.samples",
    "score": "api.samples",
    "accuracy": "api.accuracy",
    "attempts": "api.accuracy",
    "batch": "api.samples",
    "Stats": "api.losses",
    "Terms": "api.losses",
    "loss": "api.losses",
    "surrogate": "api.surrogates",
    "gradient_weight": "api.surrogates",
    "entropy_change": "api.surrogates",
    "plot_gradient_weights": "api.plots",
    "slide_gradient_weights": "api.sliders",
    "LiveCurves": "api.live",
    "show": "api.show",
    "Trainer": "api.runs",
    "SavedRun": "api.runs",
    "open_run": "api.runs",
    # What a method of one's own is made of
    "Method": "losses.contract",
    "Number": "losses.contract",
    "SurrogateTerms": "losses.contract",
}

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'cegppo_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})


def _stop(signum: int, frame: object) -> None:
    """A signal while a command imports its modules, which takes seconds, or does what it would do
    again from the start: one line, no traceback, and the exit code of console/start.py.
    """
    os.write(2, b"stopped\n")
    raise SystemExit(75)


# Only for the package's commands: cegppo, and python -m cegppo_jax[.NAME], where sys.argv[0] is
# "-m" until the module is found. What a process ignores (SIGHUP under nohup) it goes on ignoring.
_program = os.path.basename(sys.argv[0]) if sys.argv else ""
_is_module = _program == "-m" and re.search(
    rf" -m {__name__}(\.\w+)?( |$)", " ".join(sys.orig_argv)
)
if _is_module or _program == "cegppo":
    for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(_number) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(_number, _stop)
