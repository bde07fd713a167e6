"""After the README's first command: did runs/quickstart learn what it promises? Collected by name
only, since it judges a run of minutes and not the code:

python -m pytest tests/quickstart_learned.py
"""

import json
from pathlib import Path

RUN = Path(__file__).parent.parent / "runs" / "quickstart"


def test_held_out_accuracy_rose_by_25_points():
    lines = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()]
    accuracies = [line["evaluation/accuracy"] for line in lines if "evaluation/accuracy" in line]
    assert 0.20 <= accuracies[0] <= 0.50
    assert accuracies[-1] - accuracies[0] >= 0.25


def test_the_evaluation_command_agrees_with_the_run():
    last = json.loads((RUN / "metrics.jsonl").read_text().splitlines()[-1])
    (folder,) = (RUN / "evaluations").iterdir()
    assert folder.name.startswith(f"step{last['step']}-")
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["accuracy"]["mean"] == last["evaluation/accuracy"]
