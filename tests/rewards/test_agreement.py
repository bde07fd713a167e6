"""Agreement with labels that others gave: extra, on files that are not part of the project."""

import os
from pathlib import Path

import pytest

from cegppo_jax.verify import Summary
from experiments import verifier_agreement as agreement


def labelled(name):
    path = Path(os.environ.get("CEGPPO_DATA", "")) / name
    if not path.exists():
        pytest.skip(f"CEGPPO_DATA names no folder that has {name} (verifier_agreement.py)")
    return path


def test_math_on_labelled_pairs():
    found = Summary.of(agreement.load(labelled(agreement.CASES), "core"), "math", "full")
    assert len(found.verdicts) == 343
    assert found.precision >= 0.99
    assert found.recall >= 0.95


@pytest.mark.parametrize("verifier", ["gsm8k", "math"])
def test_gsm8k_gradings(verifier):
    found = Summary.of(agreement.load(labelled(agreement.GSM8K)), verifier, "full")
    assert len(found.verdicts) == 5276
    assert found.agreement >= 0.999


@pytest.mark.parametrize("name", ["math_train.jsonl.gz", "hmmt_feb_2025.jsonl"])
def test_answers_agree_with_themselves(name):
    """The 40,000 of DeepScaleR take minutes: experiments/verifier_agreement.py has them."""
    wrong, count = agreement.inconsistent(labelled(name))
    assert 1 - len(wrong) / count >= 0.995
