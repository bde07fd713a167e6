"""How the tests ask XLA to compile: fast, since nearly all of their time is XLA's, and their
programs run for milliseconds. With XLA_FLAGS="" it compiles as for users: so runs .ci/proofs.
"""

import os

# What each flag is by default, and what compiles fastest.
FLAGS = {
    "xla_backend_optimization_level": (3, 0),
    "xla_llvm_disable_expensive_passes": (False, True),
    "xla_cpu_use_fusion_emitters": (True, False),
    "xla_cpu_parallel_codegen_split_count": (32, 1),
}


def compile_fast():
    """Of this process and its children; before jax is first used. Flags of one's own are kept."""
    flags = " ".join(f"--{name}={str(fast).lower()}" for name, (_, fast) in FLAGS.items())
    os.environ.setdefault("XLA_FLAGS", flags)


def compiled_well(lowered):
    """-> the program that users get, for a test that looks at the program itself."""
    return lowered.compile(compiler_options={name: well for name, (well, _) in FLAGS.items()})
