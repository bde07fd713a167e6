"""Flags of the engines that launch runs, read off their sources: gcloud 528.0.0 (lib/surface), XPK
1.16.0 (parser/workload.py), SkyPilot 0.14.1 (client/cli). A call with another one is refused.
"""

EVERY_GCLOUD = {"--zone", "--project", "--quiet", "--format"}
CREATE = EVERY_GCLOUD | {"--accelerator-type", "--scopes", "--spot", "--topology", "--type"}
QUEUED = "gcloud compute tpus queued-resources"
FLAGS = {
    "gcloud compute tpus tpu-vm create": CREATE | {"--version"},
    "gcloud compute tpus tpu-vm delete": EVERY_GCLOUD,
    "gcloud compute tpus tpu-vm ssh": EVERY_GCLOUD | {"--worker", "--command"},
    f"{QUEUED} create": CREATE
    | {"--runtime-version", "--node-id", "--node-count", "--node-prefix"},
    f"{QUEUED} describe": EVERY_GCLOUD,
    f"{QUEUED} delete": EVERY_GCLOUD | {"--force"},
    f"{QUEUED} scp": EVERY_GCLOUD | {"--node", "--worker", "--recurse"},
    f"{QUEUED} ssh": EVERY_GCLOUD | {"--node", "--worker", "--command"},
    "xpk workload create": {
        *("--cluster", "--project", "--zone", "--docker-image", "--tpu-type", "--num-slices"),
        *("--max-restarts", "--restart-on-exit-codes", "--termination-grace-period-seconds"),
        *("--workload", "--command", "--spot", "--dry-run"),
    },
    "sky jobs launch": {"--env", "--yes", "--name"},
    "sky jobs queue": set(),
    "sky jobs logs": set(),
    "tensorboard": {"--logdir"},
    "xprof": {"--logdir"},
}


def check_launch(words):
    """A call of an engine: it is one of those above, with flags that it has."""
    [(call, known)] = [
        (call, known) for call, known in FLAGS.items() if words[: len(call.split())] == call.split()
    ]
    flags = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert flags <= known, f"{call}: {sorted(flags - known)}"
