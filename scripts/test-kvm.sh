#!/bin/bash
# test-kvm.sh [TEST-FLAG…]: the tests that need KVM, on an emulated KVM host.
#
# Builds the tests of our VMM (libvm/kvm) and the integration tests, and runs them
# in scripts/kvmhost.sh, where the backend that
# RUNV_BACKEND names (kvm unless it is set) has real KVM. A TEST-FLAG is one of
# "go test": -run REGEXP, -v, …
#
# RUNV_TEST_TIMEOUT  of the whole, in seconds (2400)
# RUNV, RUNV_TEST_KERNEL, RUNV_TEST_DEBIAN_KERNEL  as for scripts/test.sh
set -euo pipefail
cd "$(dirname "$0")/.."

# With two processors one boot of 30 died of a triple fault, with one none of
# hundreds: QEMU's emulation of AMD-V by two threads is suspected, not convicted.
export RUNV_KVMHOST_CPUS=${RUNV_KVMHOST_CPUS:-1}
# A guest's processor may be waiting for one of this machine's all the while.
export RUNV_BOOT_LIMIT=${RUNV_BOOT_LIMIT:-30}
export RUNV_BACKEND=${RUNV_BACKEND:-kvm} RUNV=${RUNV:-$PWD/runv}
timeout=${RUNV_TEST_TIMEOUT:-2400}

RUNV_TEST_KERNEL=${RUNV_TEST_KERNEL:-$(agent/kernel/build.sh | tail -n 1)}
RUNV_TEST_DEBIAN_KERNEL=${RUNV_TEST_DEBIAN_KERNEL:-$(agent/kernel/debian.sh | tail -n 1)}
for f in "$RUNV" "$RUNV_TEST_KERNEL" "$RUNV_TEST_DEBIAN_KERNEL"; do
	[ -s "$f" ] || { echo "test-kvm: no $f (try: make runv kernel)" >&2; exit 1; }
done
export RUNV_TEST_KERNEL RUNV_TEST_DEBIAN_KERNEL RUNV_KERNEL=$RUNV_TEST_KERNEL

# What also a distribution's kernel must do, unless TEST-FLAGs choose.
stock='^(TestAgentCalls|TestKernelPanicIsAReset|TestLifecycle|TestExec|TestExecDetached|TestRunCatReturnsItsInput|TestTerminal|TestGuestFilesOnTheHost|TestHostChangesInTheGuest|TestWorkloadSeesItsConfig|TestPauseAndGoOn|TestUserNamespace)$'
# What compares with runc, and the longest lists of what the guest's kernel does, are
# about the guest, whoever runs it, and are shown with QEMU.
compare='(LikeRunc|AsRunc)$|^(TestMountOptions|TestInotify)$'
[ $# -eq 0 ] || stock= compare=

flags=()
while [ $# -gt 0 ]; do
	case $1 in
	-run | -skip | -count | -timeout | -failfast | -v | -short) flags+=("-test.${1#-}") ;;
	-*=*) flags+=("-test.${1#-}") ;;
	*) flags+=("$1") ;;
	esac
	shift
done

build=$(mktemp -d "${TMPDIR:-/tmp}/runv-test-kvm.XXXXXX")
trap 'rm -rf "$build"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
go test -c -o "$build/integration.test" ./tests/integration
go test -c -o "$build/kvm.test" ./libvm/kvm
mkdir "$build/probes"
CGO_ENABLED=0 go build -o "$build/probes/" ./tests/integration/testdata/*
export RUNV_TEST_PROBES=$build/probes

# In the machine: the first lines say on what the tests ran.
script='set -e
tests=$1 stock=$2 compare=$3
shift 3
"$RUNV" check
status=0
run() {
	for p in libvm/kvm tests/integration; do
		echo "=== $p, $RUNV_TEST_KERNEL"
		(cd "$p" && exec "$tests/${p##*/}.test" "$@") || status=1
	done
}
if [ -n "$compare" ]; then run -test.skip "$compare" "$@"; else run "$@"; fi
if [ -n "$stock" ]; then
	export RUNV_TEST_KERNEL=$RUNV_TEST_DEBIAN_KERNEL RUNV_KERNEL=$RUNV_TEST_DEBIAN_KERNEL
	run -test.run "$stock" "$@"
fi
exit $status'
scripts/kvmhost.sh --memory 3072 --timeout "$timeout" -- \
	bash -c "$script" test-kvm "$build" "$stock" "$compare" -test.count=1 -test.timeout "$((timeout - 30))s" "${flags[@]}"
