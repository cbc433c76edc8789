package engines

import "testing"

const podmanAfter = `
c=$(podman ps -aq --filter label=row="$N"); [ -z "$c" ] || podman rm -f -t 0 $c >/dev/null
`

func TestPodman(t *testing.T) { runRows(t, podmanRows, podmanAfter) }

var podmanRows = []row{
	{name: "run", short: true, script: `prun --rm busybox sh -c 'echo out; echo err >&2; exit 3' 2>err; echo $?; cat err; echo in | prun --rm -i busybox cat`, want: "out\n3\nerr\nin"},
	{name: "run-no-such-program", script: `prun --rm busybox nosuch 2>/dev/null; echo $?; prun --rm busybox /etc/passwd 2>/dev/null; echo $?`, want: "127\n126"},
	{name: "run-it", short: true, script: `ptyrun "stty rows 33 cols 77; podman --runtime $RT run --label row=$N --rm -it busybox sh -c 'sleep 0.3; stty size; test -t 0 && echo tty'"`, want: "33 77\ntty"},
	{name: "exec", short: true, script: `prun -d --name $N busybox sh -c "$loop" >/dev/null
podman exec $N sh -c 'echo out; exit 4'; echo $?; echo in | podman exec -i $N cat; podman exec -u nobody -w /tmp -e A=b $N sh -c 'id -u; pwd; echo $A'
ptyrun "podman exec -it $N sh -c 'test -t 0 && echo tty'"; podman exec -d $N >/dev/null sh -c 'echo d >/d'; until_ podman exec $N test -s /d; podman exec $N cat /d`,
		want: "out\n4\nin\n65534\n/tmp\nb\ntty\nd"},
	{name: "cp", short: true, script: `prun -d --name $N busybox sh -c 'echo in >/in; exec sleep 1000' >/dev/null; until_ podman exec $N test -s /in
echo out >out; podman cp out $N:/tmp/out; podman exec $N cat /tmp/out; podman cp $N:/in in; cat in; ls /tmp/out 2>/dev/null`, want: "out\nin"},
	{name: "top", script: `prun -d --name $N busybox sleep 1000 >/dev/null; podman top $N pid | head -1; podman top $N args | grep -c . | sed 's/^[2-9]$/some/'`, want: "PID\nsome"},
	{name: "stop", script: `prun -d --name $N busybox sh -c "$loop" >/dev/null; up() { podman logs $N | grep -q up; }; until_ up; podman stop $N >/dev/null; podman inspect -f '{{.State.Status}} {{.State.ExitCode}}' $N; podman logs $N
podman start $N >/dev/null; podman kill $N >/dev/null; podman wait $N; podman restart -t 0 $N >/dev/null; podman inspect -f '{{.State.Status}}' $N`, want: "exited 0\nup\nterm\n137\nrunning"},
	{name: "pause", script: `prun -d --name $N busybox sleep 1000 >/dev/null; podman pause $N >/dev/null; podman inspect -f '{{.State.Status}}' $N; podman unpause $N >/dev/null; podman exec $N echo ex`, want: "paused\nex"},
	{name: "options", script: `mkdir v; prun --rm -v $PWD/v:/v --tmpfs /t --read-only -u 1000:1000 --hostname h -w /tmp -e A=1 --cap-drop all busybox sh -c 'hostname; pwd; echo $A; id -u; grep CapEff /proc/self/status' 2>&1
prun --rm -v $PWD/v:/v busybox sh -c 'echo x >/v/f'; cat v/f`, want: "h\n/tmp\n1\n1000\nCapEff:\t0000000000000000\nx"},
	{name: "network", short: true, script: `prun --rm --network none busybox ls /sys/class/net; prun --rm busybox sh -c 'ls /sys/class/net; ip route | grep -c default'; prun -d --name $N -p 127.0.0.1:8099:80 busybox sh -c 'echo page >/tmp/i; exec httpd -f -h /tmp' >/dev/null
until_ curl -fs 127.0.0.1:8099/i; curl -fs 127.0.0.1:8099/i`, want: "lo\neth0\nlo\n1\npage"},
	{name: "uidmap", short: true, script: `prun --rm --uidmap 0:100000:65536 busybox sh -c 'id -u; cat /proc/self/uid_map | tr -s " "; ls /sys/class/net'`, want: "0\n 0 100000 65536\neth0\nlo"},
	{name: "limits", script: `prun --rm -m 64m --pids-limit 50 busybox sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max'
prun --name $N -m 32m --memory-swap 32m busybox tail /dev/zero; echo $?`, want: "67108864\n137"},
	{name: "healthcheck", script: `prun -d --name $N --health-cmd 'test -e /ok' --health-interval disable busybox sleep 1000 >/dev/null; podman healthcheck run $N >/dev/null 2>&1; echo $?; podman exec $N touch /ok; podman healthcheck run $N; echo $?`, want: "1\n0"},
	{name: "build", short: true, script: `mkdir b; printf 'FROM busybox\nRUN echo made >/made && id -u\nRUN cat /made\n' >b/Dockerfile
podman --runtime $RUNTIME build -q --isolation oci --runtime $RUNTIME -t $N b >/dev/null; echo $?; podman --runtime $RT run --rm --label row=$N $N cat /made; podman rmi -f $N >/dev/null`, want: "0\nmade"},
}
