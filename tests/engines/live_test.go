package engines

import "testing"

func TestDockerLive(t *testing.T) { runRows(t, liveRows, dockerAfter) }

// liveRows are what engines do to containers that run, and what containers make
// of an engine's end.
var liveRows = []row{
	{name: "update-memory-and-cpus", script: `run -d --name $N -m 256m --memory-swap 256m busybox sleep 1000 >/dev/null
limit() { docker exec $N sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max'; }
quota() { docker exec $N sh -c 'cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d" " -f1 /sys/fs/cgroup/cpu.max'; }
memory() { docker update -m $1 --memory-swap $1 $N >/dev/null; limit; }
for m in 64m 200m 256m; do memory $m; done; for c in 0.5 2 1.5; do docker update --cpus $c $N >/dev/null; quota; done
memory 32m; docker exec $N tail /dev/zero; echo $?; memory 200m; docker exec $N sh -c 'head -c 100m /dev/zero | tail | wc -c'; state $N`,
		want: "67108864\n209715200\n268435456\n50000\n200000\n150000\n33554432\n137\n209715200\n104857600\nrunning 0"},
	{name: "update-beyond", script: `run -d --name $N -m 64m --memory-swap 64m busybox sleep 1000 >/dev/null; docker update -m 2g --memory-swap 2g $N >/dev/null; docker inspect -f '{{.HostConfig.Memory}}' $N; docker exec $N sh -c 'head -c 300m /dev/zero | tail | wc -c'; state $N`, want: "2147483648\n314572800\nrunning 0"},
	{name: "stats-values", short: true, script: `run -d --name $N -m 300m --pids-limit 100 busybox sh -c 'dd if=/dev/zero of=/dev/shm/x bs=1M count=50 2>/dev/null; touch /ok; while :; do :; done' >/dev/null
until_ docker exec $N test -e /ok; docker exec $N ping -c 5 -A 172.30.77.1 >/dev/null
docker stats --no-stream --format '{{.CPUPerc}} {{.MemUsage}} {{.NetIO}} {{.PIDs}}' $N >seen; cat seen >&2
awk '{ gsub("%", ""); print ($1 > 20 && $1 < 210) ? "cpu" : "cpu " $1; print ($2 ~ /MiB/ && $2+0 >= 50 && $2+0 < $4+0) ? "memory" : "memory " $2 " " $4; print ($5 ~ /^[0-9.]+k?B$/ && $7 !~ /^0B/) ? "net" : "net " $5 " " $7; print ($8 > 0) ? "pids" : "pids " $8 }' seen`,
		want: "cpu\nmemory\nnet\npids"},
	{name: "cpus-hold", script: `run -d --name $N --cpus 0.5 busybox sh -c 'sleep 1; touch /ok; while :; do :; done' >/dev/null; until_ docker exec $N test -e /ok
stats() { docker stats --no-stream --format '{{.CPUPerc}}' $N | tee -a seen | awk '{ exit !($1+0 > 30 && $1+0 < 75) }'; }; until_ stats; echo half; docker update --cpus 0.2 $N >/dev/null; less() { docker stats --no-stream --format '{{.CPUPerc}}' $N | awk '{ exit !($1+0 > 10 && $1+0 < 30) }'; }; until_ less; echo fifth`, want: "half\nfifth"},
	{name: "oom", script: `s=$(date +%s); run -d --name $N -m 32m --memory-swap 32m busybox tail /dev/zero >/dev/null; docker wait $N; docker inspect -f '{{.State.OOMKilled}}' $N
events() { docker events --since $s --until $(($(date +%s)+1)) --filter container=$N --format '{{.Action}} {{.Actor.Attributes.exitCode}}' | grep -E "^(oom|die)" | sort -u; }; until_ eval 'events | grep -q oom'; events`, want: "137\ntrue\ndie 137\noom <no value>"},
	{name: "events", script: `s=$(date +%s); run --name $N busybox sh -c 'exit 3' ; docker rm $N >/dev/null; docker events --since $s --until $(($(date +%s)+1)) --filter container=$N --format '{{.Action}} {{.Actor.Attributes.exitCode}}' | sed 's/ <no value>//'`,
		want: "create\nattach\nstart\ndie 3\ndestroy"},
	{name: "health-timeout", script: `run -d --name $N --health-cmd 'echo start; exec sleep 777' --health-interval 1s --health-timeout 1s --health-retries 1 busybox sleep 1000 >/dev/null
is() { [ "$(docker inspect -f '{{.State.Health.Status}}' $N)" = $1 ]; }; until_ is unhealthy; docker inspect -f '{{(index .State.Health.Log 0).ExitCode}} {{(index .State.Health.Log 0).Output}}' $N; docker exec $N echo ex`, want: "-1 Health check exceeded timeout (1s)\nex"},
	{name: "signal-proxy", script: `mkdir v; /usr/bin/docker run --runtime $RT --label row=$N --rm -v $PWD/v:/v busybox sh -c 'trap "echo usr1; exit 9" USR1; touch /v/up; while :; do sleep 0.1; done' >log & p=$!
until_ test -e v/up; kill -USR1 $p; wait $p; echo $?; cat log`, want: "9\nusr1"},
	{name: "exec-signal", short: true, script: `run -d --name $N busybox sleep 1000 >/dev/null; for s in USR1 KILL; do rm -f log
docker exec $N sh -c 'trap "echo usr1; exit 7" USR1; echo up; while :; do sleep 0.1; done' >log & p=$!; until_ grep up log
e=$(docker inspect -f '{{index .ExecIDs 0}}' $N); kill -$s $(curl -s --unix-socket ${DOCKER_HOST#unix://} http://d/exec/$e/json | grep -o '"Pid":[0-9]*' | cut -d: -f2); wait $p; echo $?; cat log; none() { [ "$(docker inspect -f '{{.ExecIDs}}' $N)" = "[]" ]; }; until_ none; done; state $N; docker exec $N ps | grep -c 'trap'`,
		want: "7\nup\nusr1\n137\nup\nrunning 0\n0"},
	{name: "init-reaps", script: `run -d --name $N --init busybox sh -c 'trap "exit 3" TERM; (sleep 0.1 & exec sleep 0.2) & sh -c "sleep 0.3 & exit 0"; while :; do sleep 0.1; done' >/dev/null
until_ docker exec $N true; docker exec $N sh -c 'sleep 1; ps -o stat | grep -c Z; cat /proc/1/comm'; docker stop $N >/dev/null; state $N`, want: "0\ndocker-init\nexited 3"},
	{name: "restart-always", script: `run -d --name $N --restart always busybox sh -c 'echo up >>/n; exec sleep 1000' >/dev/null; until_ docker exec $N test -s /n; kill -9 $(docker inspect -f '{{.State.Pid}}' $N)
until_ docker exec $N sh -c 'test $(wc -l </n) = 2'; docker exec $N cat /n; docker inspect -f '{{.RestartCount}}' $N; docker stop -t 0 $N >/dev/null; state $N`, want: "up\nup\n1\nexited 137"},
	{name: "engine-stopped", script: `run -d --name $N --restart always busybox sh -c 'echo up >>/n; trap "exit 0" TERM; while :; do sleep 0.1; done' >/dev/null; until_ docker exec $N test -s /n; run -d --name $N-2 busybox sleep 1000 >/dev/null
p=$(cat $ENGINES_DIR/docker/pid); kill $p; until_ eval '! kill -0 $p'; $ENGINES_DIR/docker/start; until_ docker info
until_ docker exec $N sh -c 'test $(wc -l </n) = 2'; state $N; state $N-2`, want: "running 0\nexited 137"},
	{name: "engine-killed", script: `run -d --name $N --restart always busybox sh -c 'echo up >>/n; exec sleep 1000' >/dev/null; until_ docker exec $N test -s /n; run -d --name $N-2 busybox sleep 1000 >/dev/null; m=$(docker inspect -f '{{.State.Pid}}' $N-2)
kill -9 $(cat $ENGINES_DIR/docker/pid); $ENGINES_DIR/docker/start; until_ docker info; until_ docker exec $N sh -c 'test $(wc -l </n) = 2'; state $N; state $N-2; kill -0 $m 2>/dev/null || echo gone`, want: "running 0\nexited 137\ngone"},
	{name: "containerd-killed", script: `run -d --name $N busybox sh -c "$loop" >/dev/null; until_ docker exec $N true; kill -9 $(cat $ENGINES_DIR/containerd/pid); $ENGINES_DIR/containerd/start; until_ ctr version
until_ docker exec $N true; docker exec $N echo ex; state $N; docker stop $N >/dev/null; state $N; docker logs $N`, want: "ex\nrunning 0\nexited 0\nup\nterm"},
	{name: "at-once", script: `ended() { for i in 1 2 3 4 5 6; do eval wait \$p$i; echo $? $(cat o$i); done; }
for i in 1 2 3 4 5 6; do run --rm busybox sh -c "echo $i; exit $i" >o$i & eval p$i=$!; done; ended
run -d --name $N busybox sleep 1000 >/dev/null; for i in 1 2 3 4 5 6; do docker exec $N sh -c "echo ex$i; exit $i" >o$i & eval p$i=$!; done; ended`,
		want: "1 1\n2 2\n3 3\n4 4\n5 5\n6 6\n1 ex1\n2 ex2\n3 ex3\n4 ex4\n5 ex5\n6 ex6"},
	{name: "killed-pid", short: true, script: `run -d --name $N busybox sleep 1000 >/dev/null; p=$(docker inspect -f '{{.State.Pid}}' $N); kill -9 $p; docker wait $N; state $N; docker start $N >/dev/null; docker exec $N echo ex`, want: "137\nexited 137\nex"},
	{name: "logs-follow", script: `run -d --name $N busybox sh -c 'trap "echo term; exit 0" TERM; i=0; while :; do echo line $i; i=$((i+1)); sleep 0.1; done' >/dev/null; docker logs -f --tail 1 $N >log & p=$!; until_ grep 'line 5' log; docker stop $N >/dev/null; wait $p; echo $?; tail -n 1 log; docker logs --since 1h -t $N | head -n 1 | cut -d' ' -f2-`, want: "0\nterm\nline 0"},
	{name: "hosts-and-cgroup-parent", script: `docker network create --label row=$N $N >/dev/null; run -d --name $N --cgroup-parent /parent-$N busybox sleep 1000 >/dev/null; grep -c "/parent-$N/" /proc/$(docker inspect -f '{{.State.Pid}}' $N)/cgroup | sed 's/^[1-9][0-9]*$/below/'
hosts() { docker exec $N grep -c "$(docker inspect -f '{{slice .Id 0 12}}' $N)\$" /etc/hosts; }; hosts; docker network connect $N $N; two() { [ "$(hosts)" = 2 ]; }; until_ two; hosts; docker rm -f $N >/dev/null; gone() { [ -z "$(find /sys/fs/cgroup -path "*/parent-$N/*" -type d)" ]; }; until_ gone; find /sys/fs/cgroup -depth -name parent-$N -exec rmdir {} +`,
		want: "below\n1\n2"},
	{name: "info", script: `configured "\"default-runtime\": \"$RT\""; docker info --format '{{.DefaultRuntime}}' | sed s/$RT/default/; docker info 2>&1 | sed -n 's/^ *runc version: .*[0-9a-f].*/version/p; /WARNING.*runtime/p'; configured`, want: "default\nversion"},
}
