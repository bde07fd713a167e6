"""The texts of job files: scripts around the runs' commands, filled in by emit.py."""

INSTALL = """\
python3 -m pip install --quiet uv
test -d ~/cegppo || python3 -m uv venv --quiet --python 3.12 ~/cegppo
python3 -m uv pip install --quiet --python ~/cegppo/bin/python -e '.[tpu]'"""

SKYPILOT = """\
#!/usr/bin/env bash
# Launches the runs of {name} as managed spot jobs, which SkyPilot starts again elsewhere when their
# machine is taken away. Run it in the checkout, once; `sky jobs queue` shows them.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
{launch}
"""

XPK = """\
#!/usr/bin/env bash
# Creates a GKE workload for each run of {name}; a workload whose machine is taken away starts again
# and resumes. Flags of this script go on to `xpk workload create`: --spot, --dry-run.
#
# IMAGE has the checkout as its working directory:
#   FROM python:3.12
#   COPY . /cegppo_jax
#   WORKDIR /cegppo_jax
#   RUN pip install -e '.[tpu]'
# The bucket is mounted once for the cluster:
#   xpk storage attach sweep --cluster="$CLUSTER" --project="$PROJECT" --zone="$ZONE" \\
#     --type=gcsfuse --bucket={bucket} --mount-point={mount} --size=1000 --readonly=false \\
#     --auto-mount=true
set -euo pipefail
: "${{CLUSTER:?a GKE cluster}}" "${{PROJECT:?its project}}" "${{ZONE:?its zone}}"
: "${{IMAGE:?a Docker image}}"
flags=("$@")

create() {{
  xpk workload create --cluster="$CLUSTER" --project="$PROJECT" --zone="$ZONE" \\
    --docker-image="$IMAGE" --tpu-type={accelerator} \\
    --max-restarts=100 --restart-on-exit-codes=1,75 --termination-grace-period-seconds=300 \\
    --workload="$1" --command="$2" "${{flags[@]}}"
}}

{runs}
"""

GCLOUD = """\
#!/usr/bin/env bash
# Deals the runs of {name} out to TPU VMs that exist, one after another on each, and leaves them
# running there. Run it in the checkout:
#   gcloud compute tpus tpu-vm create NAME --zone="$ZONE" --accelerator-type={accelerator} \\
#     --version={runtime} --scopes=cloud-platform --spot
#   ZONE=... bash gcloud.sh NAME...
# When a machine was taken away, create it again and repeat the command with the same names:
# finished runs end at once, cut ones are resumed, a machine that is still at work is left alone.
set -euo pipefail
: "${{ZONE:?the zone of the machines}}"
(($#)) || {{
  echo "usage: ZONE=... $0 TPU_VM..." >&2
  exit 2
}}
runs=(
{runs}
)
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
git archive --format=tar.gz --output="$scratch/code.tar.gz" HEAD
cat >"$scratch/setup.sh" <<'END'
set -euo pipefail
mkdir -p ~/cegppo_jax ~/sweep
tar -xzf ~/code.tar.gz -C ~/cegppo_jax
cd ~/cegppo_jax
{install}
if ! command -v gcsfuse >/dev/null; then
  key=/usr/share/keyrings/cloud.google.asc
  curl -s https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee "$key" >/dev/null
  apt="https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main"
  echo "deb [signed-by=$key] $apt" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  sudo apt-get -q update
  sudo apt-get -qy install gcsfuse
fi
mountpoint -q ~/sweep || gcsfuse --implicit-dirs --rename-dir-limit=10000 {bucket} ~/sweep
END
command='../cegppo/bin/python -m cegppo_jax.sweep {path} --dir=../sweep/{name}'
work='flock -n ~/sweep.lock bash -c "bash ~/setup.sh && cp ~/runs.sh ~/now.sh && bash ~/now.sh"'
number=0
for machine in "$@"; do
  {{
    echo 'cd ~/cegppo_jax'
    for ((i = number; i < ${{#runs[@]}}; i += $#)); do
      echo "$command --arm=${{runs[i]}} || echo '${{runs[i]}} failed'"
    done
  }} >"$scratch/runs.sh"
  gcloud compute tpus tpu-vm scp "$scratch"/* "$machine:" --zone="$ZONE" --worker=all
  gcloud compute tpus tpu-vm ssh "$machine" --zone="$ZONE" --worker=all \\
    --command="nohup $work >~/sweep.log 2>&1 </dev/null &"
  number=$((number + 1))
done
"""

WANDB = """\
# wandb sweep FILE; then on each machine, in the checkout: wandb agent SWEEP_ID
# Each agent takes one run after another. Their metrics are in the sweep if the experiment's base()
# sets config.logging.writers = ("tensorboard", "wandb"). W&B starts no cut run again: the same
# command does (python -m cegppo_jax.sweep FILE --arm=ARM/seedN).
"""
