#!/bin/bash
# bench-kvm.sh [BENCH-FLAG…]: our own VMM beside QEMU, both on KVM.
#
# Runs sections kvm and kvm-network (-only kvm-iperf: that one) of tests/bench in scripts/kvmhost.sh, where KVM is real and
# everything is some hundred times slower than on hardware: what counts are the
# ratios. The table goes to stdout. A BENCH-FLAG is one of tests/bench (-n 5).
#
# RUNV_BENCH_TIMEOUT  of the whole, in seconds (3000)
# RUNV, RUNV_KERNEL   what is measured
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/deps.sh bench

# A guest's processor may be waiting for one of this machine's all the while.
export RUNV_BOOT_LIMIT=${RUNV_BOOT_LIMIT:-60}
RUNV_KERNEL=${RUNV_KERNEL:-$(agent/kernel/build.sh | tail -n 1)}
RUNV=$(realpath -- "${RUNV:-runv}")
export RUNV RUNV_KERNEL
for f in "$RUNV" "$RUNV_KERNEL"; do
	[ -s "$f" ] || { echo "bench-kvm: no $f (try: make runv kernel)" >&2; exit 1; }
done

build=$(mktemp -d "${TMPDIR:-/tmp}/runv-bench-kvm.XXXXXX")
trap 'rm -rf "$build"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
export CGO_ENABLED=0
go build -o "$build/bench" ./tests/bench
go build -ldflags '-s -w' -o "$build/work" ./tests/bench/work
# A copy: the machine sees it if this one is built anew.
cp "$RUNV" "$build/runv"

# What runv takes to do nothing, in ms of this machine's CPU time.
tries=20
native=$(
	TIMEFORMAT='%U %S'
	{ time for ((i = 0; i < tries; i++)); do "$RUNV" --version >/dev/null; done; } 2>&1 |
		awk -v n="$tries" '{ printf "%.2f", ($1 + $2) * 1000 / n }'
)

# One processor: with two, QEMU's own emulation of nested paging has been seen to
# end guests by triple faults.
scripts/kvmhost.sh --cpus 1 --memory 3072 --timeout "${RUNV_BENCH_TIMEOUT:-3000}" -- \
	"$build/bench" -runv "$build/runv" -work "$build/work" -native "$native" -only kvm,kvm-network -n 3 "$@"
