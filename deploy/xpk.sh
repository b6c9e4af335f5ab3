#!/usr/bin/env bash
# A run on a TPU slice of a GKE cluster that xpk made:
#   CLUSTER=… PROJECT=… ZONE=… IMAGE=…/onethinker-jax:tpu STORAGE=… deploy/xpk.sh v5p-32 PRESET --flags…
# STORAGE names a shared folder that `xpk storage` knows; the run's --out lies in it. WORKLOAD is the workload's name.
set -euo pipefail
tpu_type=$1
shift

# exec: xpk sends SIGTERM to the shell's child, which must be the trainer itself. xpk starts a workload again on the
# statuses 127 to 255, so on 143, and not on 1 and 2, which are errors that another start would meet again; 124 is a
# step that hung.
command="exec python -m onethinker_jax.train$(printf ' %q' "$@") --hosts.coordinator auto"
xpk workload create \
    --cluster "$CLUSTER" --project "$PROJECT" --zone "$ZONE" \
    --workload "${WORKLOAD:-onethinker}" --tpu-type "$tpu_type" \
    --docker-image "$IMAGE" --storage "$STORAGE" \
    --max-restarts "${MAX_RESTARTS:-100}" --restart-on-exit-codes 124 --termination-grace-period-seconds 120 \
    --command "$command"
