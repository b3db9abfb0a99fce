#!/bin/sh
# Runs on a spot worker. AWS gives two minutes' notice; Ray is told at once, so that nothing new starts here and
# what dies with the machine does not count as a failure of its trial.
set -u
metadata=${METADATA_URL:-http://169.254.169.254}/latest
while sleep "${POLL_S:-5}"; do
    token=$(wget -qO- --method=PUT --header='X-aws-ec2-metadata-token-ttl-seconds: 60' "$metadata/api/token") || continue
    wget -qO- --header="X-aws-ec2-metadata-token: $token" "$metadata/meta-data/spot/instance-action" || continue
    exec ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message 'spot instance is reclaimed' \
        --deadline-remaining-seconds 110
done
