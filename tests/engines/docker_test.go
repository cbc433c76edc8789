package engines

import "testing"

// dockerAfter removes what a row made.
const dockerAfter = `
c=$(docker ps -aq --filter label=row="$N"); [ -z "$c" ] || docker rm -fv $c >/dev/null
n=$(docker network ls -q --filter label=row="$N"); [ -z "$n" ] || docker network rm $n >/dev/null
v=$(docker volume ls -q --filter label=row="$N"); [ -z "$v" ] || docker volume rm $v >/dev/null
`

func TestDocker(t *testing.T) { runRows(t, dockerRows, dockerAfter) }

var dockerRows = []row{
	{name: "run", short: true, script: `run --rm busybox sh -c 'echo out; echo err >&2; exit 3' 2>err; echo $?; cat err`, want: "out\n3\nerr"},
	{name: "run-no-such-program", short: true, script: `run --rm busybox nosuch 2>/dev/null; echo $?`, want: "127"},
	{name: "run-not-executable", script: `run --rm busybox /etc/passwd 2>/dev/null; echo $?`, want: "126"},
	{name: "run-i", short: true, script: `echo in | run --rm -i busybox cat; head -c 3000000 /dev/zero | run --rm -i busybox wc -c`, want: "in\n3000000"},
	{name: "run-t", script: `run --rm -t busybox sh -c 'tty; test -t 0 && test -t 1 && test -t 2 && echo ttys'`, want: "/dev/pts/0\nttys"},
	{name: "run-it", short: true, script: `ptyrun "stty rows 33 cols 77; docker run --runtime $RT --label row=$N --rm -it busybox sh -c 'sleep 0.3; stty size; test -t 0 && echo tty'"`, want: "33 77\ntty"},
	{name: "run-d", short: true, script: `c=$(run -d busybox sh -c 'echo hi; exit 5'); docker wait $c; docker logs $c; state $c`, want: "5\nhi\nexited 5"},
	{name: "exec", short: true, script: `run -d --name $N busybox sh -c "$loop" >/dev/null
docker exec $N sh -c 'echo out; echo err >&2; exit 4' 2>err; echo $?; cat err
echo in | docker exec -i $N cat
docker exec -t $N sh -c 'test -t 0 && tty'
ptyrun "docker exec -it $N sh -c 'test -t 0 && echo tty'"
docker exec -d $N sh -c 'echo d >/d'; until_ docker exec $N test -s /d; docker exec $N cat /d
docker exec -u nobody -w /tmp -e A=b $N sh -c 'id -u; pwd; echo $A'
docker exec $N nosuch >/dev/null 2>&1; echo $?
docker exec $N sh -c 'kill -9 $$'; echo $?
docker exec $N sh -c 'grep CapEff /proc/self/status'`,
		want: "out\n4\nerr\nin\n/dev/pts/0\ntty\nd\n65534\n/tmp\nb\n126\n137\nCapEff:\t00000000a80425fb"},
	{name: "exec-privileged", script: `run -d --name $N busybox sleep 1000 >/dev/null; docker exec --privileged $N grep CapEff /proc/self/status | sed 's/0000000000*1ff/all/; s/000000..ffffffff/all/'`, want: "CapEff:\tall"},
	{name: "stop", short: true, script: `run -d --name $N busybox sh -c "$loop" >/dev/null; until_ docker exec $N true
docker stop $N >/dev/null; state $N; docker logs $N`, want: "exited 0\nup\nterm"},
	{name: "stop-kill", script: `run -d --name $N busybox sleep 1000 >/dev/null; docker stop -t 1 $N >/dev/null; state $N`, want: "exited 137"},
	{name: "kill", short: true, script: `run -d --name $N busybox sh -c "$loop" >/dev/null
has() { docker logs $N | grep -q $1; }
until_ has up; docker kill -s USR1 $N >/dev/null; until_ has usr1; state $N; docker kill $N >/dev/null; docker wait $N; state $N`,
		want: "running 0\n137\nexited 137"},
	{name: "pause", short: true, script: `run -d --name $N busybox sh -c "$loop" >/dev/null; docker pause $N >/dev/null; state $N; docker exec $N true 2>/dev/null; echo $?
docker unpause $N >/dev/null; state $N; docker exec $N echo ex; docker pause $N >/dev/null; docker rm -f $N >/dev/null; echo $?`,
		want: "paused 0\n1\nrunning 0\nex\n0"},
	{name: "stats", script: `run -d --name $N -m 300m busybox sh -c "$loop" >/dev/null
docker stats --no-stream --format '{{.MemUsage}} {{.PIDs}} {{.CPUPerc}}' $N | grep -cE '^[0-9.]+MiB / [0-9.]+MiB [1-9][0-9]* [0-9.]+%$|^[0-9.]+KiB'`, want: "1"},
	{name: "top", script: `run -d --name $N busybox sleep 1000 >/dev/null; docker top $N | head -1 | awk '{print $1, $2}'; docker top $N | wc -l | sed 's/^[2-9]$/some/'; docker top $N -o pid,args | head -1`,
		want: "UID PID\nsome\nPID                 COMMAND"},
	{name: "update", short: true, script: `run -d --name $N -m 256m --cpus 1 busybox sleep 1000 >/dev/null
limit() { docker exec $N sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max'; }
limit; docker update -m 128m --memory-swap 128m $N >/dev/null; limit; docker update --cpus 0.5 $N >/dev/null; echo $?
docker exec $N sh -c 'cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d" " -f1 /sys/fs/cgroup/cpu.max'; docker update --restart no $N >/dev/null; echo $?`,
		want: "268435456\n134217728\n0\n50000\n0"},
	{name: "logs", short: true, script: `run -d --name $N busybox sh -c 'for i in 1 2 3; do echo $i; echo e$i >&2; done' >/dev/null; docker wait $N; docker logs $N 2>/dev/null; docker logs $N 2>&1 >/dev/null`,
		want: "0\n1\n2\n3\ne1\ne2\ne3"},
	{name: "inspect", script: `run -d --name $N busybox sleep 1000 >/dev/null; docker inspect -f '{{.HostConfig.Runtime}} {{.State.Running}} {{.State.OOMKilled}}' $N | sed s/$RT/runtime/
p=$(docker inspect -f '{{.State.Pid}}' $N); kill -0 $p && echo lives; docker rm -f $N >/dev/null; kill -0 $p 2>/dev/null || echo gone`, want: "runtime true false\nlives\ngone"},
	{name: "cp", short: true, script: `run -d --name $N busybox sh -c 'echo in >/in; exec sleep 1000' >/dev/null; until_ docker exec $N test -s /in
echo out >out; docker cp out $N:/tmp/ ; docker exec $N cat /tmp/out; docker cp $N:/in - | tar xO; docker stop -t 0 $N >/dev/null; docker cp $N:/tmp/out back; cat back; docker diff $N | sort`,
		want: "out\nin\nout\nA /in\nA /tmp/out\nC /tmp"},
	{name: "rm-f", script: `run -d --name $N busybox sleep 1000 >/dev/null; docker rm -f $N >/dev/null; docker ps -aq --filter name=$N`},
	{name: "restart", script: `run -d --name $N busybox sh -c 'echo up >>/n; trap "exit 0" TERM; while :; do sleep 0.1; done' >/dev/null; until_ docker exec $N test -s /n
docker restart $N >/dev/null; until_ docker exec $N sh -c 'test $(wc -l </n) = 2'; docker stop $N >/dev/null; docker start $N >/dev/null; until_ docker exec $N sh -c 'test $(wc -l </n) = 3'; docker exec $N cat /n`,
		want: "up\nup\nup"},
	{name: "restart-on-failure", short: true, script: `run -d --name $N --restart on-failure:2 busybox sh -c 'echo up; exit 7' >/dev/null
done_() { [ "$(docker inspect -f '{{.RestartCount}} {{.State.Status}}' $N)" = "2 exited" ]; }; until_ done_; state $N; docker logs $N`, want: "exited 7\nup\nup\nup"},
	{name: "healthcheck", short: true, script: `run -d --name $N --health-cmd 'test -e /ok' --health-interval 1s --health-retries 1 busybox sleep 1000 >/dev/null
is() { [ "$(docker inspect -f '{{.State.Health.Status}}' $N)" = $1 ]; }
until_ is unhealthy; docker exec $N touch /ok; until_ is healthy; echo healthy`, want: "healthy"},
	{name: "publish", short: true, script: `run -d --name $N -p 127.0.0.1::80 busybox sh -c 'echo page >/tmp/i; exec httpd -f -h /tmp' >/dev/null
a=$(docker port $N 80); until_ curl -fs http://$a/i; curl -fs http://$a/i; ip=$(docker inspect -f '{{.NetworkSettings.IPAddress}}' $N); curl -fs http://$ip/i
busybox ping -c1 -W5 $ip >/dev/null; echo $?`, want: "page\npage\n0"},
	{name: "volumes", short: true, script: `mkdir rw ro; echo r >ro/f; echo file >file
docker volume create --label row=$N $N >/dev/null
run --rm -v $PWD/rw:/rw -v $PWD/ro:/ro:ro -v $PWD/file:/file -v $N:/vol busybox sh -c 'exec 2>&1; echo w >/rw/f; cat /ro/f /file; echo x >/ro/g; echo v >/vol/f; echo more >>/file' | sed 's/^sh: //'
cat rw/f file; run --rm -v $N:/vol:ro busybox cat /vol/f; run --rm -v /nosuch-$N/sub:/d busybox ls -d /d; rmdir /nosuch-$N/sub /nosuch-$N`,
		want: "r\nfile\ncan't create /ro/g: Read-only file system\nw\nfile\nmore\nv\n/d"},
	{name: "mount", script: `mkdir a; run --rm --mount type=bind,src=$PWD/a,dst=/a --mount type=tmpfs,dst=/t,tmpfs-size=1m busybox sh -c 'echo x >/a/f; df -k /t | tail -1 | awk "{print \$2}"'; cat a/f`, want: "1024\nx"},
	{name: "tmpfs", script: `run --rm --tmpfs /t:size=2m,mode=700 busybox sh -c 'grep " /t " /proc/mounts | cut -d" " -f3,4; stat -c %a /t'`, want: "tmpfs rw,nosuid,nodev,noexec,relatime,size=2048k,mode=700\n700"},
	{name: "read-only", script: `run --rm --read-only --tmpfs /t busybox sh -c 'exec 2>&1; touch /x; touch /t/x && echo ok'`, want: "touch: /x: Read-only file system\nok"},
	{name: "shm-size", script: `run --rm --shm-size 3m busybox sh -c 'df -k /dev/shm | tail -1 | awk "{print \$2}"'`, want: "3072"},
	{name: "network-none", short: true, script: `run --rm --network none busybox ls /sys/class/net`, want: "lo"},
	{name: "network-bridge", script: `run --rm busybox sh -c 'ls /sys/class/net; ip -4 -o addr show eth0 | grep -o "172.30.77.[0-9]*/24"; ip route | head -1; ping -c1 -W5 172.30.77.1 >/dev/null && echo pings' | sed 's/77\.[0-9]*\/24/77.N\/24/'`,
		want: "eth0\nlo\n172.30.77.N/24\ndefault via 172.30.77.1 dev eth0 \npings"},
	{name: "network-names", short: true, script: `docker network create --label row=$N $N >/dev/null
run -d --name $N-web --network $N --network-alias web busybox sh -c 'echo page >/tmp/i; exec httpd -f -h /tmp' >/dev/null
run --rm --network $N busybox sh -c 'cat /etc/resolv.conf | grep nameserver; until wget -q -O - http://web/i; do sleep 0.2; done; ping -c1 -W5 '$N-web' >/dev/null && echo pings; nslookup nosuch.invalid >/dev/null 2>&1 || echo unknown'`,
		want: "nameserver 127.0.0.11\npage\npings\nunknown"},
	{name: "network-connect", short: true, script: `docker network create --label row=$N $N >/dev/null; run -d --name $N busybox sleep 1000 >/dev/null
nets() { docker exec $N ls /sys/class/net | tr '\n' ' '; }
nets; docker network connect $N $N; two() { nets | grep -q eth1; }; until_ two; docker exec $N ip -4 -o addr show eth1 | wc -l; docker network disconnect $N $N; one() { ! nets | grep -q eth1; }; until_ one; nets`,
		want: "eth0 lo 1\neth0 lo"},
	{name: "network-container", script: `run -d --name $N busybox sleep 1000 >/dev/null; run --rm --network container:$N busybox ls /sys/class/net 2>err; echo $?; refusal err`, want: "eth0\nlo\n0"},
	{name: "network-host", short: true, script: `run --rm --network host busybox ls /sys/class/net 2>err | grep -x docker0; refusal err`, want: "docker0"},
	{name: "init", short: true, script: `run --rm --init busybox sh -c 'cat /proc/1/comm; exit 3'; echo $?`, want: "docker-init\n3"},
	{name: "device", script: `run --rm --device /dev/zero:/dev/z busybox sh -c 'head -c 4 /dev/z | od -An -tx1; stat -c %t:%T /dev/z'`, want: "00 00 00 00\n1:5"},
	{name: "privileged", script: `run --rm --privileged busybox sh -c 'mount -t tmpfs t /mnt 2>/dev/null || { mkdir /mnt; mount -t tmpfs t /mnt; }; grep -c " /mnt " /proc/mounts'`, want: "1"},
	{name: "memory", short: true, script: `run --rm -m 64m busybox sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max'
run --name $N -m 32m --memory-swap 32m busybox sh -c 'head -c 100m /dev/zero | tail >/dev/null; exit $?'; run -d --name $N-2 -m 32m --memory-swap 32m busybox tail /dev/zero >/dev/null; docker wait $N-2; docker inspect -f '{{.State.OOMKilled}}' $N-2`,
		want: "67108864\n137\ntrue"},
	{name: "cpus", script: `run --rm --cpus 0.5 busybox sh -c 'cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d" " -f1 /sys/fs/cgroup/cpu.max'; run --rm --cpuset-cpus 0 busybox nproc`, want: "50000\n1"},
	{name: "pids-limit", script: `run --rm --pids-limit 5 busybox sh -c 'for i in 1 2 3 4 5 6 7; do sleep 5 & done' 2>&1 | grep -c "can't fork"`, want: "1"},
	{name: "ulimit", script: `run --rm --ulimit nofile=123:456 --ulimit core=0 busybox sh -c 'ulimit -Sn; ulimit -Hn; ulimit -c'`, want: "123\n456\n0"},
	{name: "sysctl", script: `run --rm --sysctl net.ipv4.ip_forward=1 --sysctl kernel.shm_rmid_forced=1 busybox cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced`, want: "1\n1"},
	{name: "user", script: `run --rm -u 1000:1001 --group-add 7 busybox id; run --rm -u nobody busybox sh -c 'exec 2>&1; id -un; touch /x'`, want: "uid=1000 gid=1001 groups=7,1001\nnobody\ntouch: /x: Permission denied"},
	{name: "caps", short: true, script: `for o in '' '--cap-drop ALL' '--cap-add SYS_TIME' '--cap-drop ALL --cap-add NET_BIND_SERVICE'; do run --rm $o busybox grep CapEff /proc/self/status; done`,
		want: "CapEff:\t00000000a80425fb\nCapEff:\t0000000000000000\nCapEff:\t00000000aa0425fb\nCapEff:\t0000000000000400"},
	{name: "security-opt", short: true, script: `echo '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}' >p.json
run --rm --security-opt seccomp=$PWD/p.json busybox mkdir /x 2>&1; run --rm --security-opt no-new-privileges busybox grep NoNewPrivs /proc/self/status
run --rm --security-opt seccomp=unconfined busybox grep Seccomp: /proc/self/status; run --rm busybox grep Seccomp: /proc/self/status`,
		want: "mkdir: can't create directory '/x': Operation not permitted\nNoNewPrivs:\t1\nSeccomp:\t0\nSeccomp:\t2"},
	{name: "names", script: `run --rm --hostname host.example --dns 10.1.2.3 --dns-search s.example --add-host other:10.9.8.7 busybox sh -c 'hostname; grep -v "^#" /etc/resolv.conf; grep other /etc/hosts; cat /etc/hostname'`,
		want: "host.example\nsearch s.example\nnameserver 10.1.2.3\n10.9.8.7\tother\nhost.example"},
	{name: "command", script: `run --rm --entrypoint /bin/echo busybox -n a b; echo; run --rm -w /var busybox pwd; run --rm -w /new/dir busybox pwd; run --rm -e A=1 --env B busybox sh -c 'echo $A ${B-unset}'
B=2 run --rm --env B busybox sh -c 'echo $B; echo $HOME; echo $PATH'`, want: "a b\n/var\n/new/dir\n1 unset\n2\n/root\n/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	{name: "namespaces", script: `run --rm --pid host --uts host --ipc host busybox sh -c 'echo ok' 2>&1 | tail -1`, want: "ok"},
	{name: "commit", script: `run -d --name $N busybox sh -c 'echo c >/c; exec sleep 1000' >/dev/null; until_ docker exec $N test -s /c; docker commit $N $N:new >/dev/null; run --rm $N:new cat /c; docker rmi -f $N:new >/dev/null`, want: "c"},
	{name: "create-start-attach", script: `c=$(echo in | docker create -i --runtime $RT --label row=$N busybox sh -c 'cat; exit 6'); echo in | docker start -ai $c; echo $?`, want: "in\n6"},
	{name: "attach", script: `run -d --name $N -i busybox sh -c 'read x; echo got $x' >/dev/null; echo line | docker attach $N >/dev/null; docker wait $N; docker logs $N`, want: "0\ngot line"},
	{name: "rename-port-wait", script: `run -d --name $N busybox sh -c "$loop" >/dev/null; docker rename $N $N-b; docker exec $N-b echo x; docker kill -s TERM $N-b >/dev/null; docker wait $N-b`, want: "x\n0"},
	{name: "build", short: true, script: `configured "\"default-runtime\": \"$RT\""; mkdir b; printf 'FROM busybox\nRUN echo made >/made && cat /proc/version >/version\nRUN ping -c1 -W5 172.30.77.1 >/dev/null && cat /made\nUSER nobody\nRUN id -u\n' >b/Dockerfile
DOCKER_BUILDKIT=0 docker build -t $N b | grep -xE 'made|65534'; docker run --rm $N cat /made; docker rmi -f $N >/dev/null; configured`, want: "made\n65534\nmade"},
	{name: "live-restore", short: true, script: `configured '"live-restore": true'; run -d --name $N busybox sh -c "$loop" >/dev/null; until_ docker exec $N true
kill -9 $(cat $ENGINES_DIR/docker/pid); $ENGINES_DIR/docker/start; until_ docker info; docker exec $N echo ex; state $N; docker stop $N >/dev/null; state $N; docker logs $N | tail -1; configured`,
		want: "ex\nrunning 0\nexited 0\nterm"},
	{name: "shim-killed", script: `c=$(run -d busybox sleep 1000); p=$(docker inspect -f '{{.State.Pid}}' $c); kill -9 $(ps -o ppid= -p $p); docker wait $c; gone() { ! kill -0 $p; }; until_ gone; docker rm -f $c >/dev/null; echo $?`, want: "137\n0"},
}
