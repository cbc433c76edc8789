#!/bin/bash
# conformance.sh [--backend qemu|kvm] [--runtime runv|runc|crun] [TEST-FLAG…]
#
# Builds the validation programs of runtime-tools (a module of its own, in
# tests/conformance/programs) into the cache, runs them, and compares what they
# say with tests/conformance/expected.toml. A TEST-FLAG is one of "go test":
# -run TestValidation/REGEXP, -v, …
#
#   --backend kvm  on an emulated KVM host (scripts/kvmhost.sh)
#   --runtime      whose outcomes are compared (runv)
#
# RUNV, RUNV_TEST_KERNEL  as for scripts/test.sh
# RUNV_CACHE              as for agent/kernel/build.sh
set -euo pipefail
cd "$(dirname "$0")/.."

backend=${RUNV_BACKEND:-qemu}
while [ $# -ge 2 ]; do
	case $1 in
	--backend) backend=$2 ;;
	--runtime) export RUNV_CONFORMANCE_RUNTIME=$2 ;;
	*) break ;;
	esac
	shift 2
done

# programs builds them, and prints where they are.
programs() {
	local key dir module
	key=$({ cat tests/conformance/programs/go.*; go env GOVERSION; } | sha256sum | cut -c 1-16)
	dir=${RUNV_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/runv}/conformance/$key
	if [ ! -d "$dir" ]; then
		echo "conformance: building the validation programs" >&2
		mkdir -p "$(dirname "$dir")"
		rm -rf "$dir".part.*
		mkdir "$dir.part.$$"
		# Static, since runtimetest runs in a rootfs without libraries.
		GOFLAGS= CGO_ENABLED=0 go build -C tests/conformance/programs -ldflags '-s -w' -o "$dir.part.$$/" tool >&2
		module=$(go list -C tests/conformance/programs -m -f '{{.Dir}}' github.com/opencontainers/runtime-tools)
		install -m 644 "$module/rootfs-amd64.tar.gz" "$dir.part.$$/"
		mv "$dir.part.$$" "$dir"
	fi
	echo "$dir"
}

RUNV_CONFORMANCE_PROGRAMS=$(programs)
RUNV_TEST_KERNEL=${RUNV_TEST_KERNEL:-$(agent/kernel/build.sh | tail -n 1)}
export RUNV_CONFORMANCE_PROGRAMS RUNV_TEST_KERNEL RUNV=${RUNV:-$PWD/runv} RUNV_BACKEND=$backend

if [ "$backend" = qemu ]; then
	exec go test -count=1 -timeout 40m ./tests/conformance "$@"
fi

# Control groups as on a host with v1, at which the programs look.
export RUNV_KVMHOST_CPUS=${RUNV_KVMHOST_CPUS:-1} RUNV_BOOT_LIMIT=${RUNV_BOOT_LIMIT:-30}
build=$(mktemp -d "${TMPDIR:-/tmp}/runv-conformance.XXXXXX")
trap 'rm -rf "$build"' EXIT
go test -c -o "$build/conformance.test" ./tests/conformance
flags=()
for f in "$@"; do
	case $f in
	-*) flags+=("-test.${f#-}") ;;
	*) flags+=("$f") ;;
	esac
done
cd tests/conformance
../../scripts/kvmhost.sh --memory 3072 --timeout 2400 --cgroup v1 -- "$build/conformance.test" -test.count=1 -test.timeout 2370s "${flags[@]}"
