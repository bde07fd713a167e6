"""Package of cegppo_jax: few, chosen dependencies, pinned by lower bound."""

from setuptools import find_packages, setup

CORE = [
    "absl-py>=2.1",
    "datasets>=3.0",
    "flax>=0.12",
    "gguf>=0.17",
    "huggingface_hub>=1.0",
    "jax>=0.10,<0.12",
    "jinja2>=3.1",
    "matplotlib>=3.9",
    "ml-collections>=1.0",
    "mpmath>=1.3",
    "numpy>=2.0",
    "optax>=0.2.5",
    "orbax-checkpoint>=0.11.30",
    "rich>=13.7",
    "safetensors>=0.6",
    "tensorboardX>=2.6.2",
    "tensorflow-datasets>=4.9.9",
    "tokenizers>=0.21",
    "transformers>=5.0",
]

EXTRAS = {
    "tpu": ["jax[tpu]>=0.10,<0.12"],
    "cuda": ["jax[cuda13]>=0.10,<0.12"],
    # transformers' own models and another verifier, to compare with; torch on Linux: its CPU build
    "parity": ["accelerate>=1.0", "math-verify[antlr4-13-2]>=0.8", "torch>=2.6"],
    "test": [
        "hypothesis>=6.100",
        "mypy>=1.15",
        "psutil>=6.0",
        "pytest>=8.0",
        "pytest-xdist>=3.6",
        "ruff>=0.12",
    ],
}

setup(
    name="cegppo_jax",
    version="0.1.0",
    description="Reinforcement learning of reasoning LLMs in JAX, around CE-GPPO",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["cegppo_jax", "cegppo_jax.*", "configs"]),
    install_requires=CORE,
    extras_require=EXTRAS,
)
