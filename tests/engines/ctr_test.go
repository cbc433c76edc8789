package engines

import "testing"

const ctrAfter = `
for t in $(ctr task ls -q | grep "^$N"); do ctr task kill -s KILL -a $t; ctr task rm -f $t; done >/dev/null 2>&1
for c in $(ctr container ls -q | grep "^$N"); do ctr container rm $c; done >/dev/null
`

func TestCtr(t *testing.T) { runRows(t, ctrRows, ctrAfter) }

var ctrRows = []row{
	{name: "run", short: true, script: `crun --rm docker.io/library/busybox:latest $N sh -c 'echo out; echo err >&2; exit 3' 2>err; echo $?; cat err`, want: "out\n3\nerr"},
	{name: "run-t", short: true, script: `ptyrun "ctr run --runc-binary $RUNTIME --rm -t docker.io/library/busybox:latest $N sh -c 'test -t 0 && echo tty'"`, want: "tty"},
	{name: "detached", short: true, script: `crun -d docker.io/library/busybox:latest $N sh -c "$loop" >/dev/null
ctr task ls | awk -v n=$N '$1 == n {print $3}'; ctr task exec --exec-id e $N sh -c 'echo ex; exit 4' </dev/null; echo $?; ctr task pause $N; ctr task ls | awk -v n=$N '$1 == n {print $3}'; ctr task resume $N
ctr task metrics $N | grep -qiE '^(memory.usage|cpuacct.usage)' && echo metrics; ctr task kill -s TERM $N
gone() { ctr task ls | grep -q "^$N .*STOPPED"; }; until_ gone; ctr task rm $N 2>/dev/null; echo $?; ctr container rm $N`,
		want: "RUNNING\nex\n4\nPAUSED\nmetrics\n0"},
	{name: "exec-kill", short: true, script: `crun -d docker.io/library/busybox:latest $N sleep 1000 >/dev/null; (ctr task exec --exec-id e $N sleep 1000 </dev/null; echo $?) & p=$!; has() { ctr task ps $N | grep -q '[0-9]'; }; until_ has; until_ ctr task kill --exec-id e -s TERM $N; wait $p; ctr task ls | awk -v n=$N '$1 == n {print $3}'`,
		want: "143\nRUNNING"},
	{name: "cni", short: true, script: `crun --rm --cni docker.io/library/busybox:latest $N sh -c 'ls /sys/class/net; ip -4 -o addr show eth0 | grep -c 172.30.78; ping -c1 -W5 172.30.78.1 >/dev/null && echo pings'`, want: "eth0\nlo\n1\npings"},
	{name: "memory", script: `crun --rm --memory-limit 67108864 docker.io/library/busybox:latest $N sh -c 'mount -t cgroup -o memory m /mnt 2>/dev/null; cat /proc/self/cgroup | grep -c .; nproc >/dev/null; echo ok' | tail -1`, want: "ok"},
}
