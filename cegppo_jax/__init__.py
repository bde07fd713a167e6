"""Reinforcement learning of reasoning LLMs in JAX, around CE-GPPO (arXiv 2509.20712)."""

import os
import signal
import sys

__version__ = "0.1.0"

# transformers is used for its tokenizers; without this it advises at every start to install torch.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


def _stop(signum: int, frame: object) -> None:
    """Ctrl-C while a command imports its modules, which takes seconds: one line, no traceback."""
    raise SystemExit("stopped")


# Of the package's own commands alone, python -m cegppo_jax.NAME: sys.argv[0] is "-m" until NAME is
# found. A process that ignores Ctrl-C goes on ignoring it.
_is_command = sys.argv[:1] == ["-m"] and f" -m {__name__}." in " ".join(sys.orig_argv)
if _is_command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _stop)
