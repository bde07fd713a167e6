#!/usr/bin/env bash
# Trains as a workload of a GKE cluster that has a TPU node pool, through XPK. Run it in the checkout:
#
#   CLUSTER=... PROJECT=... ZONE=... IMAGE=... BUCKET=... bash experiments/tpu/xpk.sh [--spot] [--dry-run]
#
# IMAGE has the checkout as its working directory:
#   FROM python:3.12
#   COPY . /cegppo_jax
#   WORKDIR /cegppo_jax
#   RUN pip install -e '.[tpu]'
# Its pods need a service account that may write to the bucket (Workload Identity).
set -euo pipefail
: "${CLUSTER:?a GKE cluster}" "${PROJECT:?its project}" "${ZONE:?its zone}"
: "${IMAGE:?a Docker image}" "${BUCKET:?the name of a bucket}"

# By itself XPK starts again only what ends with 42 or 127 to 255. 75: stopped by a signal and saved.
# 1: bad input, but also a host whose neighbour was taken away.
xpk workload create --cluster="$CLUSTER" --project="$PROJECT" --zone="$ZONE" \
  --docker-image="$IMAGE" --tpu-type="${TPU_TYPE:-v5p-8}" --num-slices="${SLICES:-1}" \
  --max-restarts=100 --restart-on-exit-codes=1,75 --termination-grace-period-seconds=300 \
  --workload=ce-gppo-1p5b --command="python3 -m cegppo_jax train --distributed \
--config=configs/r1_distill_qwen_1p5b.py --workdir=gs://$BUCKET/runs/ce_gppo_1p5b" "$@"
