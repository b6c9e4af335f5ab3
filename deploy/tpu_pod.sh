#!/usr/bin/env bash
# A run on a Spot TPU pod by gcloud alone. It asks for the pod, starts the trainer on every host, and when the pod is
# taken away asks for another, on which the run goes on from its newest checkpoint. Where the pod is still there, it
# starts the trainer again after a stop by a signal, and MAX_HANGS times (3) after a step that hung:
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

give_back() {
    "${queued[@]}" delete "$NAME" --zone "$ZONE" --force --quiet
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

hangs=0
while true; do
    case "$(state 2>/dev/null || echo NONE)" in
        NONE)
            "${queued[@]}" create "$NAME" --node-id "$NAME" --zone "$ZONE" --accelerator-type "$TYPE" \
                --runtime-version "$VERSION" --spot
            ;;
        FAILED)
            echo "error: the request $NAME failed" >&2
            exit 1
            ;;
        SUSPENDING | SUSPENDED)
            echo "the pod is gone; asking for another"
            give_back
            ;;
        ACTIVE)
            status=0 # of gcloud: that of the first host whose command failed
            { on_every_host "$mount && $pull" && on_every_host "$train"; } || status=$?
            if ((status == 0)); then
                give_back
                exit 0
            elif [[ "$(state)" != ACTIVE ]]; then
                continue
            elif ((status == 143)); then # the trainer may have ended before the state says that the pod goes
                echo "stopped by a signal after a checkpoint; starting again"
            elif ((status == 124 && hangs < ${MAX_HANGS:-3})); then
                hangs=$((hangs + 1))
                echo "a step hung, $hangs of ${MAX_HANGS:-3}; starting again"
            else
                echo "error: the trainer failed on a pod that is still there, status $status; it is left as it is" >&2
                exit 1
            fi
            ;;
        *) sleep "${POLL_S:-30}" ;; # it waits for machines, or is being made or deleted
    esac
done
