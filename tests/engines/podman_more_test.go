package engines

import "testing"

func TestPodmanMore(t *testing.T) { runRows(t, podmanMoreRows, podmanAfter+podmanNetworksAfter) }

const podmanNetworksAfter = `for n in $(podman network ls -q --filter label=row="$N"); do podman network rm -f $n >/dev/null; done
for p in $(podman pod ls -q --filter label=row="$N"); do podman pod rm -f -t 0 $p >/dev/null; done
`

// podmanMoreRows are what podman has of its own, and what it does otherwise than Docker.
var podmanMoreRows = []row{
	{name: "init", script: `prun -d --name $N --init --init-path /usr/bin/docker-init busybox sh -c 'trap "exit 3" TERM; while :; do sleep 0.1; done' >/dev/null; podman exec $N sh -c '(sleep 0.1 & exec sleep 0.2) & sleep 1; ps -o stat | grep -c Z; tr "\0" " " </proc/1/cmdline | cut -d" " -f1'
podman stop $N >/dev/null; podman wait $N`, want: "0\n/run/podman-init\n3"},
	// What podman tells at first is the use since the start, to which the VM's boot adds.
	{name: "stats", script: `prun -d --name $N -m 300m busybox sh -c 'dd if=/dev/zero of=/dev/shm/x bs=1M count=50 2>/dev/null; touch /ok; while :; do :; done' >/dev/null; until_ podman exec $N test -e /ok; sleep 2
podman stats --no-stream --format '{{.CPUPerc}} {{.MemUsage}} {{.PIDs}}' $N >seen; cat seen >&2; awk '{ gsub("%", ""); print ($1 > 10 && $1 < 210) ? "cpu" : "cpu " $1; print ($2 ~ /MB/ && $2+0 >= 50 && $2+0 < $4+0) ? "memory" : "memory " $2 " " $4; print ($5 > 0) ? "pids" : "pids " $5 }' seen`, want: "cpu\nmemory\npids"},
	{name: "update", script: `prun -d --name $N -m 256m --memory-swap 256m busybox sleep 1000 >/dev/null
limit() { podman exec $N sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max'; }
for m in 64m 200m; do podman update --memory $m --memory-swap $m $N >/dev/null; limit; done; podman update --cpus 0.5 $N >/dev/null; podman exec $N sh -c 'cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d" " -f1 /sys/fs/cgroup/cpu.max'`, want: "67108864\n209715200\n50000"},
	{name: "restart-on-failure", script: `prun -d --name $N --restart on-failure:2 busybox sh -c 'echo up; exit 7' >/dev/null; done_() { [ "$(podman logs $N | grep -c up) $(podman inspect -f '{{.State.Status}}' $N)" = "3 exited" ]; }; until_ done_; podman inspect -f '{{.State.ExitCode}}' $N`, want: "7"},
	{name: "attach", script: `prun -d --name $N -i busybox sh -c 'read x; echo got $x; exit 4' >/dev/null; echo line | podman attach $N | grep got; podman wait $N`, want: "got line\n4"},
	{name: "commit-diff-export", script: `prun -d --name $N busybox sh -c 'echo c >/c; exec sleep 1000' >/dev/null; until_ podman exec $N test -s /c; podman commit -q $N $N:new >/dev/null; podman --runtime $RT run --rm --label row=$N $N:new cat /c; podman diff $N | grep -x 'A /c'; podman export $N | tar xO c; podman rmi -f $N:new >/dev/null`, want: "c\nA /c\nc"},
	{name: "cp-tree", script: `prun -d --name $N -v $PWD:/bound busybox sh -c 'mkdir -p /a/b; echo 1 >/a/b/f; ln -s b/f /a/l; exec sleep 1000' >/dev/null; until_ podman exec $N test -h /a/l; podman cp $N:/a got; cat got/b/f; readlink got/l
mkdir -p t/u; echo 2 >t/u/f; podman cp t $N:/tmp; podman exec $N cat /tmp/t/u/f; podman cp t/u/f $N:/bound/g; cat g; podman pause $N >/dev/null; podman cp $N:/a/b/f f3; cat f3; podman unpause $N >/dev/null; podman stop -t 0 $N >/dev/null; podman cp $N:/tmp/t/u/f f4; cat f4`, want: "1\nb/f\n2\n2\n1\n2"},
	{name: "network-names", script: `podman network create --label row=$N $N >/dev/null; prun -d --name $N-1 --network $N busybox sh -c 'echo page >/tmp/i; exec httpd -f -h /tmp' >/dev/null
ip=$(podman inspect -f "{{(index .NetworkSettings.Networks \"$N\").IPAddress}}" $N-1); prun --rm --network $N --add-host web:$ip busybox sh -c 'until wget -q -O - http://web/i; do sleep 0.2; done'`, want: "page"},
	{name: "publish-udp", script: `prun -d --name $N -p 127.0.0.1:8053:53/udp busybox echod 53 >/dev/null; ask() { exec 3<>/dev/udp/127.0.0.1/8053 && echo q >&3 && timeout 2 head -n 1 <&3; }; until_ ask; ask`, want: "answer q"},
	{name: "device-privileged", script: `prun --rm --device /dev/zero:/dev/z busybox sh -c 'head -c 4 /dev/z | od -An -tx1'; prun --rm --cap-add SYS_ADMIN busybox sh -c 'mkdir -p /m; mount -t tmpfs t /m && echo mounted'`, want: "00 00 00 00\nmounted"},
	{name: "namespaces-of-others", script: `prun -d --name $N busybox sleep 1000 >/dev/null; prun --rm --network container:$N busybox echo ok 2>err; echo $?; refusal err; prun --rm --network host busybox echo host 2>err; echo $?; refusal err; podman exec $N echo ex`, want: "ok\n0\nhost\n0\nex"},
	{name: "top", script: `prun -d --name $N busybox sh -c 'exec sleep 1000' >/dev/null; podman top $N user pid comm | head -1 | tr -s ' '; podman top $N | wc -l | sed 's/^[2-9]$/some/'`, want: "USER PID COMMAND\nsome"},
	{name: "signals", script: `prun -d --name $N busybox sh -c "$loop" >/dev/null; has() { podman logs $N | grep -q $1; }; until_ has up; podman kill -s USR1 $N >/dev/null; until_ has usr1; kill -TERM $(podman inspect -f '{{.State.Pid}}' $N); podman wait $N; podman logs $N`, want: "0\nup\nusr1\nterm"},
	{name: "info-and-defaults", script: `podman --runtime $RT info --format '{{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Version}}' | sed -n "1s/^$RT $RT version [0-9.]*.*/named/p; /^commit: [0-9a-f]/s/:.*//p; /^spec: 1/s/:.*//p"
prun --rm busybox sh -c 'umask; cat /proc/self/oom_score_adj; echo $container; cat /run/.containerenv | grep -c ^; ls -d /dev/shm'; prun --rm --umask 0077 busybox sh -c 'umask; touch /x; stat -c %a /x'`, want: "named\ncommit\nspec\n0022\n0\npodman\n0\n/dev/shm\n0077\n600"},
	{name: "preserve-fds", script: `echo in >f; mkfifo p; cat p >out & exec 3<f 4>p; prun --rm --preserve-fds 2 busybox sh -c 'cat <&3 >&4; ls /proc/self/fd | wc -l'; exec 4>&-; wait; cat out`, want: "6\nin"},
	{name: "build-network", script: `mkdir b; printf 'FROM busybox\nRUN ls /sys/class/net | tr "\\n" " "; ip route | grep -c ^default\n' >b/Dockerfile; podman --runtime $RUNTIME build --isolation oci --runtime $RUNTIME --cap-add net_raw -t $N b 2>&1 | grep eth0; podman rmi -f $N >/dev/null`, want: "eth0 lo 1"},
}
