#!/bin/bash
# test-engines.sh [TEST-FLAG…]   (-run '^$' -bench . -benchtime 10x: the benchmark)
#
# Starts containerd and dockerd from Debian, with data of their own, and runs
# tests/engines: what users of Docker, Podman and ctr do, with runv and with runc.
# A TEST-FLAG is one of "go test": -run 'TestDocker/exec', -v, -short (the rows that
# say most, in a third of the time), …
#
# All of it is in namespaces of its own: network (bridges and iptables are not the
# machine's), mounts, control groups (below one that is removed), and processes
# (whatever is left at the end, or when this script is killed, is killed).
#
# RUNV, RUNV_TEST_KERNEL  as for scripts/test.sh
# RUNV_ENGINES_LOGS       a directory that gets the logs of the engines
# RUNV_ENGINES_PROGRAMS   the archive of an image for Docker, "programs"; with it the
#                         bridges have a way out, too (slirp4netns)
# RUNV_ENGINES_CYCLES     how many containers TestDockerCycles runs and removes
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD

# Every control group hierarchy of the machine: "CONTROLLERS PATH-OF-OURS".
hierarchies() {
	local id controllers path root
	while IFS=: read -r id controllers path; do
		if [ "$id" = 0 ]; then
			root=/sys/fs/cgroup
			[ "$(stat -f -c %T $root)" = cgroup2fs ] || root=/sys/fs/cgroup/unified
			[ -d "$root" ] && echo "v2 $root$path"
		else
			root=/sys/fs/cgroup/${controllers#name=}
			[ -d "$root" ] && echo "$controllers $root$path"
		fi
	done < /proc/self/cgroup
}

outer() {
	[ "$(id -u)" = 0 ] || { echo "test-engines.sh: engines need root" >&2; exit 1; }
	scripts/deps.sh run test engines ${RUNV_ENGINES_PROGRAMS:+programs}
	local kernel=${RUNV_TEST_KERNEL:-$(agent/kernel/build.sh | tail -n 1)}

	dir=$(mktemp -d "${TMPDIR:-/tmp}/runv-engines.XXXXXX")
	group=${dir##*/}
	trap clean_up EXIT
	# As make install does: engines call a runtime with nearly no environment.
	install -D -m 755 "${RUNV:-$PWD/runv}" "$dir/bin/runv"
	install -D -m 644 "$kernel" "$dir/share/runv/vmlinux"
	go test -c -o "$dir/engines.test" ./tests/engines
	CGO_ENABLED=0 go build -o "$dir/echod" ./tests/engines/testdata/echod

	hierarchies > "$dir/groups"
	(
		exec {outside}</proc/self/ns/net
		while read -r controllers path; do
			mkdir "$path/$group"
			# A group of processors gets no processor by itself.
			for f in cpuset.cpus cpuset.mems; do
				[ "$controllers" = v2 ] || [ ! -e "$path/$f" ] || cat "$path/$f" > "$path/$group/$f"
			done
			echo "$BASHPID" > "$path/$group/cgroup.procs"
		done < "$dir/groups"
		RUNV_ENGINES_STAGE=inner RUNV_ENGINES_OUTSIDE=$outside exec unshare --net --mount --pid --cgroup --fork --kill-child --mount-proc \
			"$PWD/scripts/test-engines.sh" "$dir" "$@"
	)
}

clean_up() {
	local controllers path
	[ -z "${RUNV_ENGINES_LOGS:-}" ] || { mkdir -p "$RUNV_ENGINES_LOGS"; cp "$dir"/*.log "$RUNV_ENGINES_LOGS" 2>/dev/null || true; }
	if [ -f "$dir/groups" ]; then
		while read -r controllers path; do
			# Processes that were just killed may need a moment to leave.
			for _ in $(seq 50); do
				[ ! -d "$path/$group" ] || find "$path/$group" -depth -type d -exec rmdir {} + 2>/dev/null || { sleep 0.1; continue; }
				break
			done
		done < "$dir/groups"
	fi
	rm -rf "$dir"
}

# inner is process 1 of the namespaces.
inner() {
	local dir=$1; shift
	mount -t sysfs sysfs /sys
	mount_groups
	# What engines have in fixed places.
	mount -t tmpfs -o mode=755 tmpfs /run
	mkdir -p /run/lock
	for d in /var/lib/cni /var/lib/containers /etc/cni/net.d /etc/docker; do
		[ ! -d $d ] || mount -t tmpfs tmpfs $d
	done
	ip link set lo up
	PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
	export ENGINES_DIR=$dir RUNV=$dir/bin/runv
	uplink
	for e in containerd docker podman; do engine_$e; done
	make_image
	[ -z "${RUNV_ENGINES_PROGRAMS:-}" ] || /usr/bin/docker import "$RUNV_ENGINES_PROGRAMS" programs >/dev/null
	export RUNV_ENGINES=$dir
	cd tests/engines
	"$dir/engines.test" -test.timeout 40m "${@/#-/-test.}"
}

# uplink connects the network namespace with the one outside, whose descriptor
# nothing else keeps.
uplink() {
	local outside=$RUNV_ENGINES_OUTSIDE
	if [ -n "${RUNV_ENGINES_PROGRAMS:-}" ]; then
		nsenter --net=/proc/self/fd/"$outside" slirp4netns --configure --disable-host-loopback --mtu=65520 \
			--netns-type=path /proc/$$/ns/net uplink </dev/null >"$ENGINES_DIR/uplink.log" 2>&1 &
		up uplink test -e /sys/class/net/uplink
	fi
	exec {outside}<&-
}

mount_groups() {
	local id controllers path
	if [ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ] || ! grep -qv '^0:' /proc/self/cgroup; then
		mount -t cgroup2 cgroup2 /sys/fs/cgroup
		# Only a group without processes hands controllers on.
		mkdir /sys/fs/cgroup/init
		echo 1 > /sys/fs/cgroup/init/cgroup.procs
		sed 's/^/+/; s/ / +/g' /sys/fs/cgroup/cgroup.controllers > /sys/fs/cgroup/cgroup.subtree_control
		return
	fi
	mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
	while IFS=: read -r id controllers path; do
		local at=/sys/fs/cgroup/${controllers#name=} type=cgroup options=$controllers
		case $id:$controllers in
		0:*) at=/sys/fs/cgroup/unified type=cgroup2 options=rw ;;
		*:name=*) options=none,$controllers ;;
		esac
		mkdir "$at"
		mount -t $type -o "$options" cgroup "$at"
	done < /proc/self/cgroup
}

# up waits until a command succeeds.
up() {
	local name=$1; shift
	for _ in $(seq 300); do
		"$@" >/dev/null 2>&1 && return
		sleep 0.1
	done
	tail -n 20 "$ENGINES_DIR/$name.log" >&2
	echo "test-engines.sh: $name did not start" >&2
	exit 1
}

engine_containerd() {
	local d=$ENGINES_DIR/containerd
	mkdir -p $d /etc/cni/net.d
	cat > $d/config.toml <<-C
	version = 2
	root = "$d/root"
	state = "$d/state"
	disabled_plugins = ["io.containerd.grpc.v1.cri"]
	[grpc]
	  address = "$d/containerd.sock"
	[plugins."io.containerd.internal.v1.opt"]
	  path = "$d/opt"
	C
	cat > /etc/cni/net.d/10-ctr.conflist <<-C
	{ "cniVersion": "0.4.0", "name": "ctr", "plugins": [
	  { "type": "bridge", "bridge": "ctr0", "isGateway": true,
	    "ipam": { "type": "host-local", "dataDir": "$d/ipam", "routes": [{ "dst": "0.0.0.0/0" }],
	              "ranges": [[{ "subnet": "172.30.78.0/24", "gateway": "172.30.78.1" }]] } } ] }
	C
	cat > $d/start <<-C
	#!/bin/sh
	env -i PATH=$PATH HOME=$ENGINES_DIR setsid containerd --config $d/config.toml </dev/null >>$ENGINES_DIR/containerd.log 2>&1 &
	echo \$! >$d/pid
	C
	chmod +x $d/start
	$d/start
	export CONTAINERD_ADDRESS=$d/containerd.sock
	up containerd ctr version
}

engine_docker() {
	local d=$ENGINES_DIR/docker
	mkdir -p $d
	# For the benchmark: what each call of a runtime takes, into $ENGINES_DIR/timed.
	local rt
	for rt in runc "$RUNV"; do
		cat > "$d/timed-${rt##*/}" <<-C
		#!/bin/bash
		begin=\$EPOCHREALTIME
		$rt "\$@"
		status=\$?
		echo "\$begin \$EPOCHREALTIME \$*" >> $ENGINES_DIR/timed
		exit \$status
		C
		chmod +x "$d/timed-${rt##*/}"
	done
	cat > $d/daemon.base <<-C
	{ "hosts": ["unix://$d/docker.sock"], "data-root": "$d/data", "exec-root": "$d/exec", "pidfile": "$d/pid",
	  "containerd": "$ENGINES_DIR/containerd/containerd.sock", "exec-opts": ["native.cgroupdriver=cgroupfs"],
	  "bip": "172.30.77.1/24", "runtimes": { "runv": { "path": "$RUNV" },
	    "timed-runv": { "path": "$d/timed-runv" }, "timed-runc": { "path": "$d/timed-runc" } } }
	C
	cp $d/daemon.base $d/daemon.json
	cat > $d/start <<-C
	#!/bin/sh
	env -i PATH=$PATH HOME=$ENGINES_DIR setsid /usr/sbin/dockerd --config-file $d/daemon.json --oom-score-adjust 0 </dev/null >>$ENGINES_DIR/docker.log 2>&1 &
	C
	chmod +x $d/start
	$d/start
	export DOCKER_HOST=unix://$d/docker.sock
	up docker /usr/bin/docker info
}

engine_podman() {
	local n=$(ulimit -Hn) p=$(ulimit -Hu)
	# The machine's files, the one that is installed, and this machine's needs.
	mkdir "$ENGINES_DIR/containers"
	cp -a /etc/containers/. "$ENGINES_DIR/containers"
	mount --bind "$ENGINES_DIR/containers" /etc/containers
	mkdir -p /etc/containers/containers.conf.d
	sed "s|@PREFIX@|$ENGINES_DIR|" "$repository/share/containers.conf" > /etc/containers/containers.conf.d/runv.conf
	# Where root lacks CAP_SYS_RESOURCE, podman's own limits cannot be set.
	cat > /etc/containers/containers.conf <<-C
	[containers]
	default_ulimits = ["nofile=$n:$n", "nproc=${p/unlimited/32768}:${p/unlimited/32768}"]
	[engine]
	cgroup_manager = "cgroupfs"
	events_logger = "file"
	[network]
	network_backend = "cni"
	cni_plugin_dirs = ["/usr/lib/cni"]
	C
}

# make_image makes the image busybox, with the shell and its tools.
make_image() {
	local r=$ENGINES_DIR/rootfs
	mkdir -p $r/{bin,dev,etc,proc,sys,tmp,root,run,var,home}
	cp /bin/busybox "$ENGINES_DIR/echod" $r/bin/
	chmod 1777 $r/tmp
	for a in $(busybox --list); do [ -e $r/bin/$a ] || ln -s busybox $r/bin/$a; done
	printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' > $r/etc/passwd
	printf 'root:x:0:\nnobody:x:65534:\n' > $r/etc/group
	tar -C $r -cf $ENGINES_DIR/busybox.tar .
	/usr/bin/docker import $ENGINES_DIR/busybox.tar busybox >/dev/null
	podman import -q $ENGINES_DIR/busybox.tar busybox >/dev/null
	/usr/bin/docker save busybox -o $ENGINES_DIR/image.tar
	ctr image import $ENGINES_DIR/image.tar >/dev/null
}

if [ "${RUNV_ENGINES_STAGE:-}" = inner ]; then inner "$@"; else outer "$@"; fi
