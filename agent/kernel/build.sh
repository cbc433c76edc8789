#!/bin/bash
# build.sh [--path | --check]: build the guest's kernel.
#
# Makes a monolithic x86-64 vmlinux from Debian's linux-source and the *.config
# fragments and patches beside this script, and prints its path as the last line of stdout;
# progress goes to stderr. The result is cached by the hash of all that it is
# made from, so that a second call only prints. Beside vmlinux are bzImage,
# System.map and config.
#
#   --path   print where vmlinux is, or will be, and build nothing
#   --check  build if needed, then say what check-config.sh says of its config
#
# RUNV_CACHE   cache directory (default: $XDG_CACHE_HOME/runv or ~/.cache/runv)
# RUNV_LINUX_SOURCE  Debian package of the sources (default: linux-source-6.1)
# JOBS         compiler processes (default: one for each CPU)
set -euo pipefail
umask 022
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
package=${RUNV_LINUX_SOURCE:-linux-source-6.1}
cache=${RUNV_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/runv}/kernel
jobs=${JOBS:-$(nproc)}
needed_mib=3072 # sources 1,500, objects 500, and room for the linker

# What the build needs, as Debian packages.
tools="build-essential flex bison bc libelf-dev xz-utils"

say() { echo "kernel: $*" >&2; }
die() {
	echo "kernel: $*" >&2
	exit 1
}

installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Installs what is missing, or says what to type.
install_packages() {
	local missing=()
	for p in "$package" $tools; do
		installed "$p" || missing+=("$p")
	done
	[ ${#missing[@]} -eq 0 ] && return
	command -v apt-get >/dev/null || die "this script needs Debian's packages: ${missing[*]}"
	[ "$(id -u)" -eq 0 ] || die "missing packages (try: sudo apt-get install ${missing[*]})"
	say "installing ${missing[*]}"
	apt-get -q update >&2
	DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "${missing[@]}" >&2
}

# The version of the sources: of the installed package, else of the one that
# would be installed.
source_version() {
	if installed "$package"; then
		dpkg-query -W -f '${Version}' "$package"
	else
		apt-cache policy "$package" | sed -n 's/^ *Candidate: //p'
	fi
}

# The directory that the result goes to.
target() {
	local version hash
	version=$(source_version)
	[ -n "$version" ] || die "no package $package (try: apt-get update)"
	hash=$({ echo "$package $version"; cat "$here"/*.config "$here"/patches/*.patch "$here/build.sh"; } | sha256sum)
	echo "$cache/${hash:0:16}"
}

# Runs a command with its output in $log; shows the end of it on failure.
run() {
	if ! "$@" >>"$log" 2>&1; then
		tail -n 30 "$log" >&2
		cp "$log" "$cache/failed.log"
		die "failed: $* (whole log: $cache/failed.log)"
	fi
}

kmake() {
	nice make -C "$src" O="$tmp/obj" ARCH=x86_64 KBUILD_BUILD_USER=runv KBUILD_BUILD_HOST=runv \
		KBUILD_BUILD_TIMESTAMP="$stamp" -j "$jobs" "$@"
}

extract() {
	local free p
	free=$(df -Pm "$cache" | awk 'NR == 2 { print $4 }')
	[ "$free" -ge "$needed_mib" ] || die "$cache has $free MiB free, the build needs $needed_mib (try: RUNV_CACHE=/elsewhere)"
	say "extracting and patching $package $(source_version)"
	# Device trees and the headers of one GPU are a quarter of it.
	run nice tar -C "$tmp" -xf "/usr/src/$package.tar.xz" --exclude='*/arch/*/boot/dts/*' \
		--exclude='*/drivers/gpu/drm/amd/include/*' --exclude='*/tools/testing/*' --exclude='*/Documentation/devicetree/*'
	src=$tmp/$package
	[ -f "$src/Makefile" ] || die "$package.tar.xz has no directory $package"
	for p in "$here"/patches/*.patch; do
		run patch -d "$src" -p1 -F0 -N -i "$p"
	done
	stamp=$(date -u -d "@$(stat -c %Y "/usr/src/$package.tar.xz")")
}

# Everything that the fragments do not name is off.
configure() {
	say "configuring from $(cd "$here" && echo *.config)"
	mkdir "$tmp/obj"
	cat "$here"/*.config >"$tmp/all.config"
	run kmake KCONFIG_ALLCONFIG="$tmp/all.config" allnoconfig
	verify "$tmp/all.config" "$tmp/obj/.config"
}

# verify WANTED GOT: kconfig drops silently what does not exist or lacks a
# dependency. This does not.
verify() {
	local line name bad=0
	while read -r line; do
		case $line in
		'# CONFIG_'*' is not set')
			name=${line#\# }
			name=${name% is not set}
			grep -q "^$name=" "$2" || continue
			;;
		CONFIG_*)
			name=${line%%=*}
			grep -qxF -- "$line" "$2" && continue
			;;
		*) continue ;;
		esac
		say "asked for: $line; got: $(grep -E "^(# )?$name[ =]" "$2" || echo 'no such option, or a dependency is missing')"
		bad=$((bad + 1))
	done <"$1"
	[ $bad -eq 0 ] || die "$bad options did not end up as the fragments ask"
}

compile() {
	local start=$SECONDS pid
	say "compiling about 2,100 files with $jobs processes (some minutes)"
	kmake vmlinux bzImage >>"$log" 2>&1 &
	pid=$!
	while sleep 1 && kill -0 "$pid" 2>/dev/null; do
		[ $(((SECONDS - start) % 10)) -eq 0 ] &&
			say "$(grep -cE '^  (CC|AS|LD|AR) ' "$log" || true) files after $((SECONDS - start)) s"
	done
	if ! wait "$pid"; then
		grep -E -A5 'error|Error' "$log" | head -n 40 >&2
		cp "$log" "$cache/failed.log"
		die "compiling failed (whole log: $cache/failed.log)"
	fi
	say "compiled in $((SECONDS - start)) s"
}

# Puts the result in place in one step.
publish() {
	local out=$tmp/out
	mkdir "$out"
	strip -s -o "$out/vmlinux" "$tmp/obj/vmlinux"
	cp "$tmp/obj/arch/x86/boot/bzImage" "$tmp/obj/System.map" "$out/"
	cp "$tmp/obj/.config" "$out/config"
	readelf -n "$out/vmlinux" 2>/dev/null | grep -q '^ *Xen' || die "vmlinux has no PVH note"
	mv -T "$out" "$dir"
	say "vmlinux: $(($(stat -c %s "$dir/vmlinux") / 1024)) KiB, bzImage: $(($(stat -c %s "$dir/bzImage") / 1024)) KiB"
}

build() {
	mkdir -p "$cache"
	exec 9>"$cache/lock"
	if ! flock -n 9; then
		say "waiting for another build"
		flock 9
	fi
	[ -f "$dir/vmlinux" ] && return # by the one that we waited for
	rm -rf "$cache"/tmp.*           # of a build that was killed
	tmp=$(mktemp -d "$cache/tmp.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT
	trap 'exit 130' INT TERM HUP
	log=$tmp/log
	extract
	configure
	compile
	publish
}

case ${1:-} in
--path)
	dir=$(target)
	;;
'' | --check)
	[ "$(uname -m)" = x86_64 ] || die "this builds an x86-64 kernel on an x86-64 machine"
	dir=$(target 2>/dev/null) || dir=
	if [ -z "$dir" ] || [ ! -f "$dir/vmlinux" ]; then
		install_packages
		dir=$(target)
	fi
	[ -f "$dir/vmlinux" ] || build
	[ -z "${1:-}" ] || "$here/check-config.sh" "$dir/config" >&2
	;;
*) die "usage: build.sh [--path | --check]" ;;
esac
echo "$dir/vmlinux"
