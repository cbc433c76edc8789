#!/bin/busybox sh
# /init of the emulated KVM host (kvmhost.sh): PID 1, in busybox, first from the
# initramfs, then ("supervise") on the shared root.
#
# /job/settings  cgroup (v1, v2), out (a directory or nothing), modules (a
#                directory), interactive (yes if not empty), size (rows columns)
# /job/command   for bash, on the shared root
# /dev/vport?p1  the command's exit status, in decimal; p2 stdout, p3 stderr
bb=/bin/busybox

fail() {
	echo "kvmhost: $*" >/dev/console
	$bb poweroff -f
}

# 9P: cached for good, since what is shared is not ours to change.
nine=trans=virtio,version=9p2000.L,msize=512000

boot() {
	set -e
	$bb mount -t devtmpfs dev /dev
	$bb mount -t proc proc /proc
	$bb mount -t sysfs sys /sys
	while read -r m; do
		$bb insmod "/modules/$m" || echo "kvmhost: insmod $m failed" >/dev/console
	done </modules/order
	. /job/settings
	$bb mount -t 9p -o ro,$nine,cache=loose root /lower || fail "cannot mount the shared root"
	$bb mount -t ext4 -o noatime /dev/vda /scratch || fail "cannot mount the scratch disk"
	$bb mkdir -p /scratch/upper /scratch/work /scratch/tmp /scratch/docker /scratch/containers
	$bb chmod 1777 /scratch/tmp
	$bb mount -t overlay -o lowerdir=/lower,upperdir=/scratch/upper,workdir=/scratch/work overlay /mnt || fail "cannot mount the overlay"
	$bb mount -t tmpfs -o mode=755,nosuid,nodev run /mnt/run
	$bb mkdir -p /mnt/run/kvmhost /mnt/run/lock
	$bb cp $bb /init /job/settings /job/command /mnt/run/kvmhost/
	$bb mkdir -p /mnt/var/tmp /mnt/var/lib/docker /mnt/var/lib/containers /mnt/usr/lib/modules
	$bb mount --bind /scratch/tmp /mnt/var/tmp
	$bb mount --bind /scratch/docker /mnt/var/lib/docker # an overlay has no overlay as its upper
	$bb mount --bind /scratch/containers /mnt/var/lib/containers
	$bb mount --bind "/lower$modules" /mnt/usr/lib/modules
	if [ -n "$out" ]; then
		$bb mkdir -p "/mnt$out"
		$bb mount -t 9p -o $nine,cache=mmap out "/mnt$out" || fail "cannot mount $out"
	fi
	for d in dev proc sys; do $bb mount --move /$d /mnt/$d; done
	exec $bb switch_root /mnt /run/kvmhost/busybox sh /run/kvmhost/init supervise
}

mounts() {
	$bb mkdir -p /dev/pts /dev/shm /dev/mqueue
	$bb mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
	$bb mount -t tmpfs -o mode=1777,nosuid,nodev shm /dev/shm
	$bb mount -t mqueue mqueue /dev/mqueue
	$bb mount -t debugfs debugfs /sys/kernel/debug
	$bb ln -sf /proc/self/fd /dev/fd
	for i in 0:stdin 1:stdout 2:stderr; do $bb ln -sf "/proc/self/fd/${i%:*}" "/dev/${i#*:}"; done
	if [ "$cgroup" = v2 ]; then
		$bb mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
		for c in $($bb cat /sys/fs/cgroup/cgroup.controllers); do
			echo "+$c" >/sys/fs/cgroup/cgroup.subtree_control
		done
	else
		$bb mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
		for c in cpu cpuacct cpuset memory devices freezer blkio pids systemd unified; do
			$bb mkdir "/sys/fs/cgroup/$c"
			case $c in
			systemd) $bb mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd ;;
			unified) $bb mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified ;;
			*) $bb mount -t cgroup -o $c cgroup "/sys/fs/cgroup/$c" ;;
			esac
		done
	fi
	$bb mount --make-rshared / # as systemd has it
	$bb ip link set lo up
	$bb hostname kvmhost
}

# port N: the path of virtio-serial port N.
port() { echo /dev/vport*p"$1"; }

# kill_others: everything but us and the copiers; kernel threads do not mind.
kill_others() {
	for p in /proc/[0-9]*; do
		case ${p#/proc/} in
		1 | "$copy_out" | "$copy_err") ;;
		*) kill -9 "${p#/proc/}" 2>/dev/null ;;
		esac
	done
}

supervise() {
	bb=/run/kvmhost/busybox
	. /run/kvmhost/settings
	mounts
	cd /run/kvmhost
	if [ -n "$interactive" ]; then
		$bb stty rows "${size% *}" cols "${size#* }" </dev/hvc0
		$bb setsid -c /bin/bash /run/kvmhost/command </dev/hvc0 >/dev/hvc0 2>&1 &
		wait $!
		status=$?
	else
		$bb mkfifo out err
		$bb cat <out >"$(port 2)" &
		copy_out=$!
		$bb cat <err >"$(port 3)" &
		copy_err=$!
		$bb setsid /bin/bash /run/kvmhost/command </dev/null >out 2>err &
		wait $!
		status=$?
		# Who else has the pipes does not keep the machine.
		while [ -d /proc/$copy_out ] || [ -d /proc/$copy_err ]; do
			kill_others
			$bb usleep 10000
		done
	fi
	echo "$status" >"$(port 1)"
	$bb poweroff -f
}

case ${1:-} in
supervise) supervise ;;
*) boot ;;
esac
