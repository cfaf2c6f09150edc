#!/bin/sh
# Starts Pushpin in a container: fills in its files and stays in the foreground.
set -eu
: "${PUSHPIN_RUN:=/tmp/pushpin/run}" "${PUSHPIN_LOG:=/tmp/pushpin/log}"
export PUSHPIN_RUN PUSHPIN_LOG
mkdir -p "$PUSHPIN_RUN" "$PUSHPIN_LOG"
sh /opt/asgard/pushpin/render.sh /tmp/pushpin
exec pushpin --merge-output --config=/tmp/pushpin/pushpin.conf
