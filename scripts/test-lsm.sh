#!/bin/bash
# test-lsm.sh selinux|apparmor [TEST-FLAG…]: the tests that need a host with that
# security module, on an emulated one (scripts/kvmhost.sh) that enforces the policy
# in scripts/test-lsm.cil, or has the profiles in scripts/test-lsm.profiles.
#
# RUNV, RUNV_TEST_KERNEL, RUNV_BACKEND  as for scripts/test-kvm.sh
# RUNV_TEST_TIMEOUT   of the whole, in seconds (600)
# RUNV_TEST_APPARMOR  a profile of every container: with -run REGEXP other tests,
#                     too, show that they pass under it
set -euo pipefail
cd "$(dirname "$0")/.."

module=$1
shift
export RUNV_KVMHOST_CPUS=${RUNV_KVMHOST_CPUS:-1} RUNV_BOOT_LIMIT=${RUNV_BOOT_LIMIT:-30}
export RUNV_BACKEND=${RUNV_BACKEND:-kvm} RUNV=${RUNV:-$PWD/runv}
RUNV_TEST_KERNEL=${RUNV_TEST_KERNEL:-$(agent/kernel/build.sh | tail -n 1)}
export RUNV_TEST_KERNEL RUNV_KERNEL=$RUNV_TEST_KERNEL

build=$(mktemp -d "${TMPDIR:-/tmp}/runv-test-lsm.XXXXXX")
trap 'rm -rf "$build"' EXIT
scripts/deps.sh "$module"
case $module in
selinux)
	secilc -M true -c 33 -o "$build/policy" -f /dev/null scripts/test-lsm.cil
	tests='^TestSELinux'
	# It is loaded before any other process begins, and holds from then on.
	load='mount -t selinuxfs selinuxfs /sys/fs/selinux
cat "$1/policy" >/sys/fs/selinux/load
echo 1 >/sys/fs/selinux/enforce'
	;;
apparmor)
	cp scripts/test-lsm.profiles "$build/policy"
	tests='^TestAppArmor'
	load='mount -t securityfs securityfs /sys/kernel/security
/sbin/apparmor_parser --add --skip-cache "$1/policy"'
	;;
esac
go test -c -o "$build/integration.test" ./tests/integration
mkdir "$build/probes"
CGO_ENABLED=0 go build -o "$build/probes/" ./tests/integration/testdata/*
export RUNV_TEST_PROBES=$build/probes RUNV_TEST_LSM=$module

script="set -e
$load
cd tests/integration
shift
exec \"\$@\""
scripts/kvmhost.sh --append "security=$module $module=1" --timeout "${RUNV_TEST_TIMEOUT:-600}" -- \
	bash -c "$script" test-lsm "$build" "$build/integration.test" -test.run "$tests" -test.count=1 "${@/#-/-test.}"
