package engines

import "testing"

func TestDockerOptions(t *testing.T) { runRows(t, optionRows, dockerAfter) }

// optionRows are options of docker run that are used less than those of dockerRows.
var optionRows = []row{
	{name: "detach", script: `run -d --name $N -it busybox sh >/dev/null; printf 'echo a$((1+1))b; exit 4\n' | timeout 5 script -qec "docker attach $N" /dev/null >/dev/null; docker wait $N; docker logs $N | grep -c a2b`, want: "4\n1"},
	{name: "stop-signal", script: `run -d --name $N --stop-signal USR1 busybox sh -c 'trap "echo usr1; exit 9" USR1; echo up; while :; do sleep 0.1; done' >/dev/null; up() { docker logs $N | grep -q up; }; until_ up; docker stop $N >/dev/null; state $N; docker logs $N`,
		want: "exited 9\nup\nusr1"},
	{name: "cgroupns", script: `run --rm --cgroupns private busybox cut -d: -f3 /proc/self/cgroup | sort -u`, want: "/"},
	{name: "resources", script: `run --rm --cpu-shares 512 --memory-reservation 32m -m 64m --oom-score-adj 500 --blkio-weight 300 busybox sh -c 'cat /proc/self/oom_score_adj; echo ok' 2>/dev/null`, want: "500\nok"},
	{name: "sysctls", script: `run --rm --sysctl kernel.msgmax=4096 --sysctl fs.mqueue.msg_max=20 --sysctl net.core.somaxconn=77 busybox cat /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max /proc/sys/net/core/somaxconn`, want: "4096\n20\n77"},
	{name: "propagation", script: `mkdir -p a b c; for p in rprivate rslave rshared private slave shared; do run --rm -v $PWD/a:/b:$p busybox sh -c 'touch /b/f && echo ok' 2>&1 | sed '/error waiting/d; s/.*is not a shared.*/not shared/'; done | sort | uniq -c | tr -s ' '`, want: "4 not shared\n 2 ok"},
	{name: "mac-and-ip", script: `docker network create --label row=$N --subnet 172.30.79.0/24 $N >/dev/null
run --rm --network $N --ip 172.30.79.77 --mac-address 02:00:00:00:00:77 busybox sh -c 'cat /sys/class/net/eth0/address; ip -4 -o addr show eth0 | grep -o 172.30.79.77; hostname -i'`, want: "02:00:00:00:00:77\n172.30.79.77\n172.30.79.77"},
	{name: "link", script: `run -d --name $N busybox sh -c 'echo page >/tmp/i; exec httpd -f -h /tmp' >/dev/null; run --rm --link $N:web busybox sh -c 'until wget -q -O - http://web/i; do sleep 0.2; done'`, want: "page"},
	{name: "two-networks", script: `docker network create --label row=$N $N-1 >/dev/null; docker network create --label row=$N $N-2 >/dev/null; c=$(docker create --runtime $RT --label row=$N --name $N --network $N-1 busybox sh -c 'ls /sys/class/net'); docker network connect $N-2 $N; docker start -a $N`, want: "eth0\neth1\nlo"},
	{name: "internal-network", script: `docker network create --internal --label row=$N $N >/dev/null; run --rm --network $N busybox sh -c 'ip route | grep -c default; ls /sys/class/net'`, want: "1\neth0\nlo"},
	{name: "ipv6", script: `docker network create --ipv6 --subnet fd00:77::/64 --label row=$N $N >/dev/null; run -d --name $N --network $N busybox sleep 1000 >/dev/null
ip=$(docker inspect -f "{{(index .NetworkSettings.Networks \"$N\").GlobalIPv6Address}}" $N); run --rm --network $N busybox sh -c "ping -6 -c1 -W5 $ip >/dev/null && echo pings; ip -6 route | grep -c ^default"`, want: "pings\n1"},
	{name: "tun", script: `run --rm --device /dev/net/tun --cap-add NET_ADMIN busybox sh -c 'stat -c %t:%T /dev/net/tun'`, want: "a:c8"},
	{name: "device-rules", script: `run --rm --device /dev/zero:/dev/z:r busybox sh -c 'head -c 1 /dev/z | wc -c'; run --rm --cap-add MKNOD --device-cgroup-rule 'c 1:5 r' busybox sh -c 'mknod /z c 1 5; head -c 1 /z | wc -c'`,
		want: "1\n1"},
	{name: "cidfile-volumes-from", script: `run -d --name $N --cidfile cid -v /data busybox sh -c 'echo v >/data/f; exec sleep 1000' >/dev/null; until_ docker exec $N test -s /data/f; run --rm --volumes-from $N busybox cat /data/f; [ "$(cat cid)" = "$(docker inspect -f '{{.Id}}' $N)" ] && echo same`, want: "v\nsame"},
	{name: "export-diff", script: `run --name $N busybox sh -c 'echo e >/e; rm /etc/group' ; docker export $N | tar xO e; docker diff $N | sort`, want: "e\nA /e\nC /etc\nD /etc/group"},
	{name: "image-user-and-volume", script: `mkdir b; printf 'FROM busybox\nVOLUME /data\nUSER nobody\nWORKDIR /tmp\nENV A=1\nENTRYPOINT ["sh", "-c"]\nCMD ["id -un; pwd; echo $A; ls -d /data"]\nHEALTHCHECK NONE\n' >b/Dockerfile; DOCKER_BUILDKIT=0 docker build -q -t $N b >/dev/null; run --rm $N; docker rmi -f $N >/dev/null`,
		want: "nobody\n/tmp\n1\n/data"},
	{name: "exec-while-stopping", script: `run -d --name $N busybox sh -c 'trap "sleep 2; exit 3" TERM; touch /up; while :; do sleep 0.1; done' >/dev/null; until_ docker exec $N test -e /up; docker stop -t 20 $N >/dev/null & sleep 0.3; docker exec $N echo ex; wait; state $N; docker exec $N true 2>&1 | grep -c 'is not running'`,
		want: "ex\nexited 3\n1"},
	{name: "bad-bind", script: `run --rm --mount type=bind,src=/nosuch,dst=/x busybox true 2>&1 | grep -o 'bind source path does not exist: /nosuch'; run --rm -v /etc/passwd:/etc busybox true 2>/dev/null; echo $?`, want: "bind source path does not exist: /nosuch\n125"},
	{name: "output", script: `run --rm busybox sh -c 'i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done' | tail -1; run --rm busybox head -c 5000000 /dev/zero | wc -c`, want: "line 19999\n5000000"},
	{name: "live-update-limits", script: `run -d --name $N --pids-limit 100 --cpuset-cpus 0 busybox sleep 1000 >/dev/null; docker update --pids-limit 50 $N >/dev/null; echo $?; docker update --cpu-shares 512 --cpuset-cpus 0 $N >/dev/null; echo $?; docker exec $N nproc`, want: "0\n0\n1"},
}
