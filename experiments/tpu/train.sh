#!/usr/bin/env bash
# Trains on TPU VMs, one host or many, and makes spot machines again until the run has all its steps.
# Run it in the checkout, on a machine that stays:
#
#   ZONE=us-east5-a bash experiments/tpu/train.sh NAME ACCELERATOR SLICES FLAGS OF cegppo train...
#
# The state of the machines is the only memory: the same command again takes over where it stands.
# When the run is complete, or has failed three times in a row on machines that live, they are deleted.
set -euo pipefail
: "${ZONE:?the zone of the machines}"
if (($# < 4)); then
  echo "usage: ZONE=... $0 NAME ACCELERATOR SLICES --config=... --workdir=gs://..." >&2
  exit 2
fi
name=$1 accelerator=$2 slices=$3
shift 3
case "$accelerator" in
  v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
  v5p-*) runtime=v2-alpha-tpuv5 ;;
  v6e-*) runtime=v2-alpha-tpuv6e ;;
  *) runtime=tpu-ubuntu2204-base ;;
esac
pause="${PAUSE_SECONDS:-30}"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
git archive --format=tar.gz --output="$scratch/code.tar.gz" HEAD

tpus() { gcloud compute tpus queued-resources "$@" --zone="$ZONE"; }

state() { # of the request: ACTIVE when there are machines; NONE without a request
  if tpus describe "$name" --format="value(state.state)" 2>"$scratch/error"; then return; fi
  if grep -q NOT_FOUND "$scratch/error"; then echo NONE; else
    echo UNKNOWN # no network, say, or a login that has expired: no reason to ask for machines
    cat "$scratch/error" >&2
  fi
}

create() {
  local nodes=(--node-id="$name") spot=()
  ((slices == 1)) || nodes=(--node-count="$slices" --node-prefix="$name")
  [[ ${SPOT:-1} == 0 ]] || spot=(--spot)
  tpus create "$name" --accelerator-type="$accelerator" --runtime-version="$runtime" \
    --scopes=cloud-platform "${spot[@]}" "${nodes[@]}"
}

delete() { tpus delete "$name" --force --quiet; }

# On every host: install what the checkout needs, then train. 75 says that the run was asked to stop
# and is saved: on a machine that is still there it goes on.
cat >"$scratch/train.sh" <<END
set -euo pipefail
exec 9>~/train.lock
flock 9 # where a connection was lost, the run before may still go on: it ends first
mkdir -p ~/cegppo_jax
tar -xzf ~/code.tar.gz -C ~/cegppo_jax
cd ~/cegppo_jax
python3 -m pip install --quiet uv
test -d ~/cegppo || python3 -m uv venv --quiet --python 3.12 ~/cegppo
python3 -m uv pip install --quiet --python ~/cegppo/bin/python -e '.[tpu]'
code=75
while ((code == 75)); do
  code=0
  ~/cegppo/bin/python -m cegppo_jax train --distributed$(printf ' %q' "$@") || code=\$?
done
exit "\$code"
END

train() {
  tpus scp "$scratch/code.tar.gz" "$scratch/train.sh" "$name:" --node=all --worker=all &&
    tpus ssh "$name" --node=all --worker=all --command="bash ~/train.sh"
}

failures=0
while ((failures < 3)); do
  now="$(state)"
  echo "$(date +%T) $name: $now"
  case "$now" in
    NONE)
      create
      sleep "$pause"
      ;;
    ACTIVE)
      began=$SECONDS
      if train; then
        delete
        exit 0
      fi
      ((SECONDS - began < 1800)) || failures=0 # it has trained: this is no failure to start
      sleep "$pause" # a machine that was taken away is seen as such after a moment
      if [[ "$(state)" == ACTIVE ]]; then failures=$((failures + 1)); fi
      ;;
    SUSPENDED) delete ;;
    FAILED)
      delete
      failures=$((failures + 1))
      ;;
    *) sleep "$pause" ;;
  esac
done
echo "$name has failed $failures times in a row: read the lines above" >&2
[[ "$(state)" == NONE ]] || delete
exit 1
