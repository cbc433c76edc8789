#!/bin/bash
# Runs the tests: lint, unit (with the race detector), integration (real VMs, with
# QEMU), engines (what most users of Docker, Podman and ctr do), conformance
# (runtime-tools' validation programs, with both backends), kvm (the integration
# tests with our own VMM, on an emulated KVM host).
# Without arguments all of them; what fails does not keep the rest from running.
set -u
cd "$(dirname "$0")/.."

failed=()
step() { # step NAME COMMAND…
	local name=$1; shift
	echo "==> $name" >&2
	"$@" || { echo "==> $name FAILED" >&2; failed+=("$name"); }
}

lint() {
	local unformatted
	unformatted=$(gofmt -l $(git ls-files '*.go' | grep -v '\.pb\.go$'))
	if [ -n "$unformatted" ]; then
		echo "not gofmt'ed: $unformatted" >&2
		return 1
	fi
	go vet ./... && go tool staticcheck ./... || return 1
	# It asks for more, but is not a tool of go.mod: with it would come 200 modules.
	if command -v golangci-lint >/dev/null; then golangci-lint run ./...; fi
}

# kernel finds or builds the guest's kernel, once. Tests that need one skip
# without it, so it is not optional here.
kernel() {
	[ -n "${RUNV_TEST_KERNEL:-}" ] || RUNV_TEST_KERNEL=$(agent/kernel/build.sh | tail -n 1) || return 1
	[ -s "$RUNV_TEST_KERNEL" ] || { echo "no guest kernel at '$RUNV_TEST_KERNEL'" >&2; return 1; }
	export RUNV_TEST_KERNEL RUNV_KERNEL=$RUNV_TEST_KERNEL
}

# debian finds or unpacks a distribution's kernel, with its modules.
debian() {
	[ -n "${RUNV_TEST_DEBIAN_KERNEL:-}" ] || RUNV_TEST_DEBIAN_KERNEL=$(agent/kernel/debian.sh | tail -n 1) || return 1
	export RUNV_TEST_DEBIAN_KERNEL
}

# The race detector needs cgo, which the monitor must not have (it changes the
# privileges of all threads); so the binary that is driven is the one of make.
unit() {
	kernel || return 1
	go test -race -count=1 -timeout 15m $(go list ./... | grep -v '^runv/tests')
}

integration() {
	kernel && debian || return 1
	export RUNV=${RUNV:-$PWD/runv}
	go test -count=1 -timeout 40m -p 1 ./tests/...
}

# All of it is "make test-engines".
engines() {
	kernel || return 1
	scripts/test-engines.sh -short
}

conformance() {
	kernel || return 1
	local status=0
	scripts/conformance.sh --backend qemu || status=1
	# Those that look at the host's control groups alone make a hundred containers.
	scripts/conformance.sh --backend kvm -skip=TestValidation/linux_cgroups || status=1
	return $status
}

kvm() {
	kernel && debian || return 1
	scripts/test-kvm.sh
}

for what in "${@:-lint unit integration engines conformance kvm}"; do
	for w in $what; do step "$w" "$w"; done
done
if [ ${#failed[@]} -gt 0 ]; then
	echo "==> failed: ${failed[*]}" >&2
	exit 1
fi
echo "==> all passed" >&2
