#!/bin/bash
# debian.sh [--vmlinux]: get Debian's cloud kernel, for a guest.
#
# Downloads linux-image-cloud-amd64, unpacks it into the cache (nothing is
# installed), indexes its modules, and prints the path of its vmlinuz as the
# last line of stdout; progress goes to stderr. The modules are where
# "runv --kernel" looks for them: ../lib/modules beside the kernel.
#
#   --vmlinux  print the uncompressed kernel instead, which starts sooner: under
#              TCG decompressing takes 0.5 s
#
# RUNV_CACHE    cache directory (default: $XDG_CACHE_HOME/runv or ~/.cache/runv)
# RUNV_PACKAGE  a kernel package, or one that depends on it
set -euo pipefail
umask 022
export LC_ALL=C

package=${RUNV_PACKAGE:-linux-image-cloud-amd64}
cache=${RUNV_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/runv}/debian

say() { echo "debian kernel: $*" >&2; }
die() {
	echo "debian kernel: $*" >&2
	exit 1
}

# Installs the tools that are missing, or says what to type.
install_tools() {
	local missing=()
	[ -x /sbin/depmod ] || missing+=(kmod)
	# What a vmlinuz is compressed with: lz4 the cloud kernel, xz the other one.
	command -v lz4 >/dev/null || missing+=(lz4)
	command -v xz >/dev/null || missing+=(xz-utils)
	command -v apt-get >/dev/null || die "this script needs Debian's apt-get"
	[ ${#missing[@]} -eq 0 ] && return
	[ "$(id -u)" -eq 0 ] || die "missing packages (try: sudo apt-get install ${missing[*]})"
	say "installing ${missing[*]}"
	apt-get -q update >&2
	DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "${missing[@]}" >&2
}

# The package with the files: linux-image-cloud-amd64 only depends on one.
resolve() {
	apt-cache depends "$package" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1
}

# le32 FILE OFFSET: a little-endian number.
le32() { od -An -tu4 -j "$2" -N 4 "$1" | tr -d ' '; }

# uncompress BZIMAGE VMLINUX: takes the payload out of a bzImage
# (Documentation/x86/boot.rst: setup_sects, payload_offset, payload_length; the
# last 4 bytes are the uncompressed size).
uncompress() {
	local sects start length magic tool package
	sects=$(od -An -tu1 -j 497 -N 1 "$1" | tr -d ' ')
	start=$(((sects + 1) * 512 + $(le32 "$1" 584)))
	length=$(($(le32 "$1" 588) - 4))
	magic=$(od -An -tx1 -j "$start" -N 4 "$1" | tr -d ' ')
	case $magic in
	02214c18) tool=lz4 ;;
	fd377a58) tool=xz package=xz-utils ;;
	28b52ffd) tool=zstd ;;
	1f8b*) tool=gzip ;;
	*) die "$1 is compressed in an unknown way ($magic)" ;;
	esac
	command -v $tool >/dev/null || die "$1 is compressed with $tool (try: apt-get install ${package:-$tool})"
	head -c $((start + length)) "$1" | tail -c $length | $tool -dc >"$2" || die "$1 cannot be decompressed with $tool"
}

fetch() {
	local deb release
	mkdir -p "$cache"
	exec 9>"$cache/lock"
	flock 9
	[ -d "$dir" ] && return
	rm -rf "$cache"/tmp.*
	tmp=$(mktemp -d "$cache/tmp.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT
	trap 'exit 130' INT TERM HUP
	say "downloading $image $version"
	# apt-get drops its privileges and could not write here as _apt.
	(cd "$tmp" && apt-get -q -o APT::Sandbox::User=root download "$image" >&2)
	deb=$(echo "$tmp"/*.deb)
	say "unpacking $(($(stat -c %s "$deb") >> 20)) MiB"
	dpkg -x "$deb" "$tmp/root"
	release=$(ls "$tmp/root/lib/modules")
	say "indexing the modules of $release"
	/sbin/depmod -b "$tmp/root" "$release"
	uncompress "$tmp/root/boot/vmlinuz-$release" "$tmp/root/boot/vmlinux-$release"
	mv -T "$tmp/root" "$dir"
}

kind=vmlinuz
case ${1:-} in
'') ;;
--vmlinux) kind=vmlinux ;;
*) die "usage: debian.sh [--vmlinux]" ;;
esac
install_tools
image=$(resolve)
if [ -z "$image" ] && [ "$(id -u)" -eq 0 ]; then
	say "updating the list of packages"
	apt-get -q update >&2
	image=$(resolve)
fi
[ -n "$image" ] || die "no package $package (try: apt-get update)"
version=$(apt-cache policy "$image" | sed -n 's/^ *Candidate: //p')
dir=$cache/${image}_$version
[ -d "$dir" ] || fetch
echo "$dir"/boot/$kind-*
