#!/bin/bash
# test-selinux.sh [TEST-FLAG…]: the tests that need a host with SELinux, on an
# emulated one (scripts/kvmhost.sh) that enforces scripts/test-selinux.cil.
#
# RUNV, RUNV_TEST_KERNEL, RUNV_BACKEND  as for scripts/test-kvm.sh
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v secilc >/dev/null; then
	apt-get -q update >&2 && DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends secilc >&2
fi
export RUNV_KVMHOST_CPUS=${RUNV_KVMHOST_CPUS:-1} RUNV_BOOT_LIMIT=${RUNV_BOOT_LIMIT:-30}
export RUNV_BACKEND=${RUNV_BACKEND:-kvm} RUNV=${RUNV:-$PWD/runv}
RUNV_TEST_KERNEL=${RUNV_TEST_KERNEL:-$(agent/kernel/build.sh | tail -n 1)}
export RUNV_TEST_KERNEL RUNV_KERNEL=$RUNV_TEST_KERNEL

build=$(mktemp -d "${TMPDIR:-/tmp}/runv-test-selinux.XXXXXX")
trap 'rm -rf "$build"' EXIT
secilc -M true -c 33 -o "$build/policy" -f /dev/null scripts/test-selinux.cil
go test -c -o "$build/integration.test" ./tests/integration

# The policy is loaded before any other process begins, and holds from then on.
script='set -e
mount -t selinuxfs selinuxfs /sys/fs/selinux
cat "$1/policy" >/sys/fs/selinux/load
echo 1 >/sys/fs/selinux/enforce
cd tests/integration
shift
exec "$@"'
scripts/kvmhost.sh --append "security=selinux selinux=1" --timeout "${RUNV_TEST_TIMEOUT:-600}" -- \
	bash -c "$script" test-selinux "$build" "$build/integration.test" -test.run '^TestSELinux' -test.count=1 "${@/#-/-test.}"
