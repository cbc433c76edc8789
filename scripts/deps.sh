#!/bin/bash
# Installs the Debian packages that are missing for the named uses:
#   run   what a container in a VM needs: QEMU, and busybox for the first bundle
#   test  what the tests compare with and drive
#   engines  Docker, Podman and containerd, for tests/engines
#   bench  what the benchmark measures with
#   programs  what their image of real programs is made with, and a way out for it
#   selinux, apparmor  what makes policies for scripts/test-lsm.sh
#   generate  what remakes the code of the protocol
# The kernel's build dependencies are installed by agent/kernel/build.sh, if it
# has to build. Says what it does; does nothing if nothing is missing.
set -eu

packages_run=(qemu-system-x86 busybox-static ca-certificates)
# The race detector needs a C compiler; the seccomp compiler is compared with libseccomp.
packages_test=(gcc libc6-dev libseccomp-dev runc crun iproute2 procps)
packages_engines=(docker.io containerd containernetworking-plugins podman iptables busybox-static iproute2 procps bsdutils util-linux curl
	jq docker-compose slirp4netns passt netavark aardvark-dns dnsmasq-base)
packages_bench=(iperf3)
packages_programs=(debootstrap slirp4netns)
packages_selinux=(secilc)
packages_apparmor=(apparmor)
packages_generate=(protobuf-compiler)

want=()
for use in "$@"; do
	case $use in
	run) want+=("${packages_run[@]}") ;;
	test) want+=("${packages_test[@]}") ;;
	engines) want+=("${packages_engines[@]}") ;;
	bench) want+=("${packages_bench[@]}") ;;
	programs) want+=("${packages_programs[@]}") ;;
	selinux) want+=("${packages_selinux[@]}") ;;
	apparmor) want+=("${packages_apparmor[@]}") ;;
	generate) want+=("${packages_generate[@]}") ;;
	*) echo "deps.sh: unknown use '$use' (run, test, engines, bench, programs, selinux, apparmor, generate)" >&2; exit 2 ;;
	esac
done

missing=()
for p in "${want[@]}"; do
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true)" = installed ] || missing+=("$p")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "deps.sh: these Debian packages are missing, install them as root: ${missing[*]}" >&2
	exit 1
fi
echo "==> installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt-get update -q && apt-get install -q -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
	cat "$log" >&2
	echo "deps.sh: apt-get failed (above)" >&2
	exit 1
fi
