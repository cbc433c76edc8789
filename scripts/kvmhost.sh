#!/bin/bash
# kvmhost.sh [OPTIONS] [COMMAND ARG…]: run a command on an emulated KVM host.
#
# Boots a machine with AMD-V and nested paging under QEMU's TCG, with Debian's
# linux-image-amd64. In it /dev/kvm is real. It sees this machine's root, read-only
# below an overlay, and runs COMMAND in the same directory with the same
# environment (as far as --env says), without input. stdout, stderr and the exit
# status are the command's. Without a COMMAND it is a shell on the terminal.
# Whatever is written in it is gone afterwards, but for --out.
#
#   --cpus N        (RUNV_KVMHOST_CPUS, 2)
#   --memory MIB    (RUNV_KVMHOST_MEMORY, 2048)
#   --disk MIB      scratch disk: overlay, /var/tmp, engines' stores (16384, sparse)
#   --timeout SECS  end the machine after that, with status 124 (0: never)
#   --cgroup v1|v2  v2 as systemd has it, or v1 with a v2 tree beside it (v2)
#   --env NAME[=VALUE]  pass a variable; RUNV*, GO*, LC_*, PATH, HOME, TERM … always are
#   --out DIR       share DIR, at the same path, so that the command can write there
#   --append ARGS   further parameters of its kernel
#   --verbose       print the kernel's console on stderr
#
# Status 125: the machine did not come to an end by itself (the end of its
# console is printed). RUNV_CACHE is as for agent/kernel/debian.sh.
set -euo pipefail
umask 022

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${RUNV_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/runv}

# Everything that init needs before it sees the root, and what a host has loaded.
modules=(virtio_pci virtio_blk ext4 9p 9pnet_virtio overlay virtio_console kvm_amd tun fuse loop)
passed='^(PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_[A-Z]+|TERM|COLORTERM|TZ|CI|RUNV[A-Z0-9_]*|GO[A-Z0-9_]*|CGO[A-Z0-9_]*|XDG_CACHE_HOME|XDG_CONFIG_HOME)$'

die() {
	echo "kvmhost: $*" >&2
	exit 125
}

usage() {
	sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
	exit "$1"
}

# need COMMAND PACKAGE…: installs what a command is missing for.
need() {
	local command=$1
	shift
	PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null && return
	command -v apt-get >/dev/null || die "no $command, and no apt-get to install it"
	[ "$(id -u)" -eq 0 ] || die "no $command (try: sudo apt-get install $*)"
	echo "kvmhost: installing $*" >&2
	{ apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "$@"; } >&2 ||
		die "apt-get failed (above)"
}

# initramfs: busybox, the modules in the order in which they load, and init.
# Cached by all that it is made from. Prints its path.
initramfs() {
	local key dir file m
	key=$({ echo "$release $(basename "$kernel_dir") ${modules[*]}" && sha256sum <"$here/kvmhost-init.sh" && sha256sum </bin/busybox; } | sha256sum | cut -c 1-16)
	file=$cache/kvmhost/$key.cpio
	if [ ! -s "$file" ]; then
		dir=$work/initramfs
		mkdir -p "$dir"/{bin,modules,proc,sys,dev,mnt,lower,scratch} "$cache/kvmhost"
		cp /bin/busybox "$dir/bin/busybox"
		install -m 0755 "$here/kvmhost-init.sh" "$dir/init"
		for m in "${modules[@]}"; do
			PATH=$PATH:/usr/sbin:/sbin modprobe -d "$kernel_dir" -S "$release" --show-depends "$m" || die "no module $m in $kernel_dir"
		done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$work/modules"
		while read -r m; do
			cp "$m" "$dir/modules/"
			basename "$m"
		done <"$work/modules" >"$dir/modules/order"
		(cd "$dir" && find . | busybox cpio -o -H newc 2>/dev/null) >"$work/initramfs.cpio"
		mv "$work/initramfs.cpio" "$file"
	fi
	echo "$file"
}

# job: what init is to do, as a second archive: "settings" is read by busybox,
# "command" by bash on the shared root.
job() {
	local dir=$work/job name
	mkdir -p "$dir/job"
	{
		printf 'cgroup=%q\nout=%q\nmodules=%q\ninteractive=%q\n' "$cgroup" "$out" "$kernel_dir/lib/modules" "$interactive"
		[ -z "$interactive" ] || printf 'size=%q\n' "$(stty size 2>/dev/null || echo 24 80)"
	} >"$dir/job/settings"
	{
		for name in $(compgen -e); do
			[[ $name =~ $passed ]] && printf 'export %s=%q\n' "$name" "${!name}"
		done
		for name in "${env[@]}"; do
			case $name in
			*=*) printf 'export %s=%q\n' "${name%%=*}" "${name#*=}" ;;
			*) [ -z "${!name+set}" ] || printf 'export %s=%q\n' "$name" "${!name}" ;;
			esac
		done
		# Not the caller's, which may be on no real file system here.
		printf 'export TMPDIR=/var/tmp RUNV_KVMHOST=1\n'
		printf 'ulimit -Hn 1048576; ulimit -Sn 1024\n'
		printf 'cd %q || exit 125\n' "$PWD"
		if [ -n "$interactive" ]; then
			printf 'exec "${SHELL:-/bin/bash}" -i\n'
		else
			printf 'exec'
			printf ' %q' "$@"
			printf '\n'
		fi
	} >"$dir/job/command"
	(cd "$dir" && find job | busybox cpio -o -H newc 2>/dev/null)
}

cpus=${RUNV_KVMHOST_CPUS:-2} memory=${RUNV_KVMHOST_MEMORY:-2048} disk=16384 timeout=0
cgroup=v2 out='' verbose='' interactive='' append='' env=()
while [ $# -gt 0 ]; do
	case $1 in
	--cpus | --memory | --disk | --timeout | --cgroup | --env | --out | --append)
		[ $# -ge 2 ] || die "$1 wants a value"
		case $1 in
		--env) env+=("$2") ;;
		--append) append=$2 ;;
		--out) out=$(cd "$2" 2>/dev/null && pwd -P) || die "--out: no directory '$2'" ;;
		--cgroup) [[ $2 == v[12] ]] && cgroup=$2 || die "--cgroup: '$2' (v1, v2)" ;;
		*) [[ $2 =~ ^[0-9]+$ ]] && declare "${1#--}=$2" || die "$1: '$2' is not a number" ;;
		esac
		shift 2
		;;
	--verbose) verbose=1; shift ;;
	-h | --help) usage 0 ;;
	--) shift; break ;;
	-*) echo "kvmhost: unknown option $1" >&2; usage 125 >&2 ;;
	*) break ;;
	esac
done
if [ $# -eq 0 ]; then
	[ -t 0 ] && [ -t 1 ] || die "no command, and no terminal for a shell"
	interactive=1
fi

need qemu-system-x86_64 qemu-system-x86
need busybox busybox-static
need modprobe kmod
need mke2fs e2fsprogs
need setpriv util-linux

work=$(mktemp -d "${TMPDIR:-/tmp}/runv-kvmhost.XXXXXX")
machine='' follower='' copiers=()
cleanup() {
	if [ -n "$machine" ]; then
		kill -KILL "$machine" 2>/dev/null || true # takes QEMU along
		wait "$machine" 2>/dev/null || true
	fi
	[ -z "$follower" ] || kill "$follower" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

kernel=$(RUNV_PACKAGE=${RUNV_KVMHOST_PACKAGE:-linux-image-amd64} "$here/../agent/kernel/debian.sh" --vmlinux | tail -n 1)
[ -s "$kernel" ] || die "no kernel"
kernel_dir=$(cd "$(dirname "$kernel")/.." && pwd -P)
release=$(basename "$kernel")
release=${release#vmlinux-}
base=$(initramfs)
{ cat "$base" && job "$@"; } >"$work/initrd"
truncate -s "${disk}M" "$work/disk"
PATH=$PATH:/usr/sbin:/sbin mke2fs -q -F -t ext4 -m 0 -O ^has_journal,^metadata_csum -E lazy_itable_init=1,nodiscard "$work/disk"

# The owner of a file that root shares is the owner; others see what they may read.
model=none
[ "$(id -u)" -ne 0 ] || model=passthrough
args=(
	-M q35,accel=tcg,kernel-irqchip=off,usb=off,sata=off,smbus=off,vmport=off,hpet=off
	-cpu ${RUNV_KVMHOST_CPU:-max,-erms,-fsrm,-la57,-pku,+svm,+npt} -smp "$cpus" -m "$memory" -nodefaults -no-user-config -display none -no-reboot
	-kernel "$kernel" -initrd "$work/initrd"
	-append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr random.trust_cpu=on tsc=reliable no_timer_check nohz=off highres=off audit=0 nowatchdog $append"
	-chardev "file,id=console,path=$work/console" -serial chardev:console
	-drive "if=none,id=scratch,file=$work/disk,format=raw,cache=unsafe,discard=unmap" -device virtio-blk-pci,drive=scratch
	-fsdev "local,id=root,path=/,security_model=$model,readonly=on,multidevs=remap" -device virtio-9p-pci,fsdev=root,mount_tag=root
	-device virtio-serial-pci
	-monitor "unix:$work/monitor,server=on,wait=off"
	-chardev "file,id=status,path=$work/status" -device virtserialport,chardev=status,nr=1,name=status
)
[ -z "$out" ] || args+=(-fsdev "local,id=out,path=$out,security_model=$model,multidevs=remap" -device virtio-9p-pci,fsdev=out,mount_tag=out)
if [ -n "$interactive" ]; then
	args+=(-chardev stdio,id=tty,signal=off -device virtconsole,chardev=tty,nr=0)
else
	# Through pipes: whatever they are here, QEMU can write to them, and wait.
	exec 8> >(exec cat)
	copiers+=($!)
	exec 9> >(exec cat >&2 8>&-)
	copiers+=($!)
	args+=(-add-fd fd=8,set=1 -add-fd fd=9,set=2)
	args+=(-chardev file,id=stdout,path=/dev/fdset/1,append=on -device virtserialport,chardev=stdout,nr=2,name=stdout)
	args+=(-chardev file,id=stderr,path=/dev/fdset/2,append=on -device virtserialport,chardev=stderr,nr=3,name=stderr)
fi
: >"$work/console"
if [ -n "$verbose" ]; then
	tail -f -n +1 "$work/console" >&2 8>&- 9>&- &
	follower=$!
fi

# setpriv: however this script dies, QEMU does, too.
run=(setpriv --pdeathsig KILL timeout --foreground -k 1 "$timeout" setpriv --pdeathsig KILL qemu-system-x86_64 "${args[@]}")
if [ -n "$interactive" ]; then
	"${run[@]}" <&0 2>"$work/qemu" &
else
	"${run[@]}" </dev/null >"$work/qemu" 2>&1 &
fi
machine=$!
ended=0
wait "$machine" || ended=$?
machine=''
exec 8>&- 9>&- # so that the copiers end
for copier in "${copiers[@]}"; do wait "$copier" || true; done

[ "$ended" -ne 124 ] || { echo "kvmhost: not done after $timeout s" >&2; exit 124; }
status=$(cat "$work/status" 2>/dev/null || true)
[[ $status =~ ^[0-9]+$ ]] && exit "$status"
{
	echo "kvmhost: the machine ended (QEMU: status $ended) before the command did"
	cat "$work/qemu" 2>/dev/null
	tail -n 30 "$work/console"
} >&2
exit 125
