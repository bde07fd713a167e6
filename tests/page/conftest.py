"""Directories of runs with made-up numbers."""

import json

import pytest

CONFIG = {
    "seed": 0,
    "steps": 20,
    "problems": {"task": "chained_arithmetic"},
    "model": {"pretrained": "", "layers": 2, "width": 64},
    "loss": {
        "surrogate": "ce_gppo",
        "beta_low": 0.5,
        "beta_high": 1.0,
        "clip_low": 0.2,
        "high_probability": "half",
    },
    "batch": {"minibatch_prompts": 16, "row_tokens": 64, "max_refills": 4},
    "optimizer": {"learning_rate": 1e-4, "max_grad_norm": 1.0},
    "sampler": {"max_completion_tokens": 28, "dtype": "float32"},
    "trainer": {"dtype": "float32"},
    "mismatch": {"correction": "none"},
    "reward": {
        "overlong_policy": "keep",
        "pool": {"timeout_seconds": 5.0, "memory_megabytes": 2048},
    },
    "steering": {
        "guard": {"floor": 0.0},
        "controller": {
            "enabled": False,
            "entropy_low": 0.1,
            "entropy_high": 0.12,
            "beta_low_min": 0.0,
            "beta_low_max": 2.0,
            "beta_high_min": 0.0,
            "beta_high_max": 2.0,
        },
    },
}


def changed(config, settings):
    config = json.loads(json.dumps(config))
    for name, value in settings.items():
        *sections, last = name.split(".")
        section = config
        for one in sections:
            section = section[one]
        section[last] = value
    return config


@pytest.fixture
def made_up(tmp_path):
    """Writes a run of `steps` steps: metrics are a value of every step, or a list of them."""

    def write(metrics, name="run", samples=(), steps=20, **settings):
        folder = tmp_path / name
        folder.mkdir()
        config = changed(CONFIG, {key.replace("/", "."): one for key, one in settings.items()})
        (folder / "config.json").write_text(json.dumps(config))
        lines = []
        for step in range(steps):
            values = {
                metric: one[step] if isinstance(one, list) else one
                for metric, one in metrics.items()
            }
            lines.append({"phase": "rl", "step": step + 1, **values})
        for file, content in (("metrics.jsonl", lines), ("samples.jsonl", samples)):
            (folder / file).write_text("".join(json.dumps(line) + "\n" for line in content))
        return folder

    return write
