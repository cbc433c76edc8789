#!/bin/bash
# Makes the image of tests/engines' real programs from Debian's packages, and prints
# the path of its archive. It is kept below ${RUNV_CACHE:-~/.cache/runv}/programs, by
# what it is made of: this script and the mirror. Remove it to have newer packages.
#
# Mirror and proxy are those that the machine's apt uses.
set -euo pipefail
suite=bookworm
packages=(nginx-light postgresql redis-server redis-tools python3 strace gdb gcc libc6-dev libc6-dbg
	openjdk-17-jdk-headless curl procps ca-certificates)

# The first mirror of the suite that the machine's apt knows.
mirror() {
	local found
	found=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 2>/dev/null | awk -v s=$suite '$1 == s { print $2; exit }')
	[ -n "$found" ] || { echo "programs-image.sh: apt knows no mirror of $suite (try: apt-get update, with one in its sources)" >&2; return 1; }
	echo "$found"
}

# in_root runs a command in the tree, in namespaces of its own: its processes end with it.
in_root() {
	local root=$1; shift
	unshare --mount --pid --fork --kill-child bash -euc '
		root=$0
		mount -t proc proc "$root/proc"
		exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive "$@"' "$root" "$@"
}

make_tree() {
	local root=$1 mirror=$2 proxy
	eval "$(apt-config shell proxy Acquire::http::Proxy)"
	[ -z "${proxy:-}" ] || export http_proxy=$proxy
	# What nobody reads in a test.
	mkdir -p "$root/etc/dpkg/dpkg.cfg.d" "$root/usr/sbin" "$root/etc/postgresql-common"
	printf 'path-exclude=/usr/share/%s/*\n' doc man info locale > "$root/etc/dpkg/dpkg.cfg.d/small"
	debootstrap --variant=minbase "$suite" "$root" "$mirror"
	# No service is started here, and no cluster made: the tests make theirs.
	printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
	chmod +x "$root/usr/sbin/policy-rc.d"
	echo 'create_main_cluster = false' > "$root/etc/postgresql-common/createcluster.conf"
	cp -L /etc/resolv.conf "$root/etc/resolv.conf"
	in_root "$root" apt-get update -q ${proxy:+-o Acquire::http::Proxy="$proxy"}
	in_root "$root" apt-get install -q -y --no-install-recommends ${proxy:+-o Acquire::http::Proxy="$proxy"} "${packages[@]}"
	# Nothing of the machine is in the image, and no index that grows old.
	in_root "$root" apt-get clean
	rm -rf "$root"/etc/resolv.conf "$root"/etc/apt/sources.list "$root"/etc/hostname "$root"/var/lib/apt/lists/* "$root"/usr/sbin/policy-rc.d
	ln -s /usr/lib/postgresql/*/bin "$root/opt/pg"
}

[ "$(id -u)" = 0 ] || { echo "programs-image.sh: debootstrap needs root" >&2; exit 1; }
mirror=$(mirror)
cache=${RUNV_CACHE:-$HOME/.cache/runv}/programs
archive=$cache/$({ cat "$0"; echo "$mirror"; } | sha256sum | cut -c1-16).tar
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ ! -e "$archive" ]; then
	echo "==> making the image of Debian's programs (a minute or a few)" >&2
	work=$(mktemp -d "$cache/make.XXXXXX")
	trap 'rm -rf --one-file-system "$work"' EXIT
	mkdir "$work/root"
	# In the background, as a function that "if" calls would go on after an error.
	make_tree "$work/root" "$mirror" >"$cache/log" 2>&1 </dev/null 9>&- &
	if ! wait $!; then
		tail -n 20 "$cache/log" >&2
		echo "programs-image.sh: the image cannot be made (above; all of it: $cache/log)" >&2
		exit 1
	fi
	tar -C "$work/root" --numeric-owner --one-file-system --exclude='./dev/*' -cf "$work/tar" .
	rm -f "$cache"/*.tar
	mv "$work/tar" "$archive"
fi
echo "$archive"
