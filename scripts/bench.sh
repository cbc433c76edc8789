#!/bin/bash
# Measures ./runv: see tests/bench. Arguments are passed on (-n 3, -only run,exec;
# -help lists them). The table goes to stdout.
set -eu
cd "$(dirname "$0")/.."
scripts/deps.sh bench

RUNV_KERNEL=${RUNV_KERNEL:-$(agent/kernel/build.sh | tail -n 1)}
export RUNV_KERNEL
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
export CGO_ENABLED=0
go build -o "$bin/bench" ./tests/bench
go build -ldflags '-s -w' -o "$bin/work" ./tests/bench/work

# In the background, so that a signal reaches this shell, which passes it on
# and waits for the clean-up.
"$bin/bench" -runv "${RUNV:-./runv}" -work "$bin/work" "$@" &
trap 'kill -TERM $! 2>/dev/null || true' INT TERM HUP
wait $! && status=0 || status=$?
while kill -0 $! 2>/dev/null; do wait $! && status=0 || status=$?; done
exit "$status"
