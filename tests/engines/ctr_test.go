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
	{name: "memory", script: `crun --rm --memory-limit 67108864 docker.io/library/busybox:latest $N sh -c 'head -c 20m /dev/zero | tail | wc -c; tail /dev/zero; echo $?'`, want: "20971520\n137"},
	{name: "options", script: `mkdir v; crun --rm --env A=1 --cwd /tmp --read-only --pid-file $PWD/pid --cap-drop CAP_KILL --mount type=bind,src=$PWD/v,dst=/v,options=rbind:rw docker.io/library/busybox:latest $N sh -c 'exec 2>&1; echo $A; pwd; touch /x; echo x >/v/f; grep CapEff /proc/self/status'; cat v/f; test -s pid && echo pid`,
		want: "1\n/tmp\ntouch: /x: Read-only file system\nCapEff:\t00000000a80425db\nx\npid"},
	{name: "net-host", script: `crun --rm --net-host docker.io/library/busybox:latest $N ls /sys/class/net 2>err | grep -x docker0; refusal err`, want: "docker0"},
	{name: "metrics", short: true, script: metrics, want: "memory\nmore memory\ncpu\nno cpu\nthe same"},
}

// metrics has a container write 50 MB, compute, and then do nothing, and looks for all
// of it in what the engine is told, in bytes and nanoseconds (of cgroup v2: µs), in both
// of the forms that ctr has.
const metrics = `
crun -d docker.io/library/busybox:latest $N sh -c 'at() { until test -e /dev/shm/$1; do sleep 0.1; done; }; at write; head -c 50m /dev/zero >/dev/shm/x; touch /dev/shm/written; at compute; until test -e /dev/shm/rest; do :; done; touch /dev/shm/rests; exec sleep 1000' >/dev/null
tell() { ctr task exec --exec-id e$RANDOM$RANDOM $N touch /dev/shm/$1 </dev/null; }; is() { ctr task exec --exec-id e$RANDOM$RANDOM $N test -e /dev/shm/$1 </dev/null; }
json() { ctr task metrics --format json $N | jq -r '"memory=\(.memory.usage.usage? // .memory.usage) cpu=\(.cpu.usage.total? // .cpu.usage_usec * 1000)"'; }
table() { ctr task metrics $N | awk '/^memory.usage/ { print "memory=" $2 } /^cpuacct.usage / { print "cpu=" $2 } /^cpu.usage_usec/ { print "cpu=" $2 * 1000 }'; }
# used sets per to the thousandths of a processor that were used in a second.
used() { local from t; eval $(json); from=$cpu t=${EPOCHREALTIME/./}; sleep 1; eval $(json); per=$(((cpu - from) / (${EPOCHREALTIME/./} - t))); echo used $per >&2; }
until_ eval 'is . && json'; eval $(json); was=$memory; [ $was -gt 0 -a $was -lt 400000000 ] && echo memory || echo $was
tell write; until_ is written; eval $(json); more=$((memory - was)); [ $more -gt 50000000 -a $more -lt 150000000 ] && echo more memory || echo $more
tell compute; busy() { used; [ $per -gt 300 -a $per -lt 1900 ]; }; until_ busy; echo cpu
tell rest; until_ is rests; idle() { used; [ $per -lt 200 ]; }; until_ idle; echo no cpu
eval $(json); m=$memory c=$cpu; eval $(table); near() { local d=$(($1 - $2)); [ ${d#-} -lt $(($2 / 10)) ] || echo $1 $2; }; near $memory $m; near $cpu $c; echo the same
`
