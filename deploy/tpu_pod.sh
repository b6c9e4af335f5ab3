#!/usr/bin/env bash
# A run on a Spot TPU pod by gcloud alone. It asks for the pod, starts the trainer on every host, and when the pod is
# taken away asks for another, on which the run goes on from its newest checkpoint:
#   NAME=onethinker ZONE=us-east5-a TYPE=v5p-32 VERSION=v2-alpha-tpuv5 NFS=10.0.0.2:/onethinker \
#       IMAGE=…/onethinker-jax:tpu deploy/tpu_pod.sh PRESET --flags…
# NFS is a share that all hosts mount at /data, such as a Filestore; the run's --out lies in it. Run this in tmux on a
# machine that stays up.
set -euo pipefail
: "${NAME:?}" "${ZONE:?}" "${TYPE:?}" "${VERSION:?}" "${NFS:?}" "${IMAGE:?}"
queued=(gcloud compute tpus queued-resources)
registry=${IMAGE%%/*}

state() {
    "${queued[@]}" describe "$NAME" --zone "$ZONE" --format 'value(state.state)'
}

on_every_host() {
    gcloud compute tpus tpu-vm ssh "$NAME" --zone "$ZONE" --worker all --quiet --command "$1"
}

mount="sudo mkdir -p /data && (mountpoint -q /data || sudo mount -t nfs $NFS /data)"
pull="gcloud auth configure-docker $registry --quiet && sudo -E docker pull --quiet $IMAGE"
# root and --privileged for the chips, the host's network for the hosts to find each other. docker run hands SIGTERM on.
train="sudo docker rm --force onethinker >/dev/null 2>&1; \
sudo docker run --rm --name onethinker --privileged --user root --network host --volume /data:/data \
--stop-timeout 120 $IMAGE$(printf ' %q' "$@") --hosts.coordinator auto"

while true; do
    if ! state >/dev/null 2>&1; then # else the pod of an earlier call is still there
        "${queued[@]}" create "$NAME" --node-id "$NAME" --zone "$ZONE" --accelerator-type "$TYPE" \
            --runtime-version "$VERSION" --spot
    fi
    until [[ "$(state)" == ACTIVE ]]; do
        [[ "$(state)" != FAILED ]] || { echo "error: the request $NAME failed" >&2; exit 1; }
        sleep "${POLL_S:-30}"
    done
    if on_every_host "$mount && $pull" && on_every_host "$train"; then
        "${queued[@]}" delete "$NAME" --zone "$ZONE" --force --quiet
        exit 0
    fi
    if [[ "$(state)" == ACTIVE ]]; then
        echo "error: the trainer failed on a pod that is still there; it is left as it is" >&2
        exit 1
    fi
    echo "the pod is gone; asking for another"
    "${queued[@]}" delete "$NAME" --zone "$ZONE" --force --quiet
done
