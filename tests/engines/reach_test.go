package engines

import (
	"strings"
	"testing"
)

func TestDockerReach(t *testing.T) { runRows(t, reachRows, dockerAfter) }

// reachRows are who reaches whom over the network.
var reachRows = []row{
	{name: "publish-udp-and-ipv6", short: true, script: `run -d --name $N -p 127.0.0.1::53/udp -p '[::1]::53/udp' -p '[::1]::80' busybox sh -c 'echo page >/tmp/i; httpd -h /tmp; exec echod 53' >/dev/null
ask() { exec 3<>/dev/udp/$1 && echo q >&3 && timeout 2 head -n 1 <&3; }
port() { docker port $N $1 | grep -F $2 | sed 's/.*://'; }
ip=$(docker inspect -f '{{.NetworkSettings.IPAddress}}' $N)
for a in $ip/53 127.0.0.1/$(port 53/udp 127) ::1/$(port 53/udp ::1); do until_ ask $a; ask $a; done; curl -fsg http://[::1]:$(port 80/tcp ::1)/i`,
		want: "answer q\nanswer q\nanswer q\npage"},
	{name: "ipv6-names", script: `docker network create --ipv6 --subnet fd00:78::/64 --label row=$N $N >/dev/null
run -d --name $N --network $N --network-alias web busybox sh -c 'echo page >/tmp/i; exec httpd -f -h /tmp -p [::]:80' >/dev/null
ip=$(docker inspect -f "{{(index .NetworkSettings.Networks \"$N\").GlobalIPv6Address}}" $N)
run --rm --network $N busybox sh -c 'until wget -q -O - http://['$ip']/i; do sleep 0.2; done; ping -6 -c1 -W5 web >/dev/null && echo pings'`, want: "page\npings"},
	{name: "services", script: `docker network create --label row=$N $N >/dev/null
run -d --name $N-db --network $N --network-alias db -v $PWD:/data busybox sh -c 'trap "exit 0" TERM; cd /data; echo 1 >row; nc -ll -p 5432 -e sh -c "read q; cat row; echo \$q >>row" & wait' >/dev/null
run -d --name $N-app --network $N --network-alias app -p 127.0.0.1::80 busybox sh -c 'mkdir -p /w/cgi-bin; printf "#!/bin/sh\necho; echo 2 | nc -w 5 db 5432\n" >/w/cgi-bin/q; chmod +x /w/cgi-bin/q; exec httpd -f -h /w' >/dev/null
get() { curl -fs http://$(docker port $N-app 80)/cgi-bin/q | grep .; }
until_ get; echo 1 >row; get; docker restart -t 5 $N-db >/dev/null; until_ get; echo 3 >row; get; docker rm -f $N-db >/dev/null; get || echo gone`, want: "1\n3\ngone"},
	{name: "big-transfer", script: `docker network create --label row=$N -o com.docker.network.driver.mtu=1400 $N >/dev/null
run -d --name $N --network $N --network-alias web busybox sh -c 'dd if=/dev/zero bs=1M count=20 2>/dev/null | tr "\0" x >/tmp/i; touch /tmp/ready; exec httpd -f -h /tmp' >/dev/null; until_ docker exec $N test -e /tmp/ready
run --rm --network $N busybox sh -c 'cat /sys/class/net/eth0/mtu; wget -q -O - http://web/i | md5sum'; docker exec $N md5sum </dev/null /tmp/i | cut -c1-32
ip=$(docker inspect -f "{{(index .NetworkSettings.Networks \"$N\").IPAddress}}" $N); curl -fs http://$ip/i | md5sum`,
		want: "1400\nb9dc45e76c3e084bb92d9af5a383533a  -\nb9dc45e76c3e084bb92d9af5a383533a\nb9dc45e76c3e084bb92d9af5a383533a  -"},
	{name: "nsenter", script: `run -d --name $N busybox sh -c 'httpd; exec sleep 1000' >/dev/null; p=$(docker inspect -f '{{.State.Pid}}' $N)
nsenter -t $p -n ip -4 -o addr show eth0 | grep -c " $(docker inspect -f '{{.NetworkSettings.IPAddress}}' $N)/24"; nsenter -t $p -n ip route | grep -c ^default; [ "$(nsenter -t $p -u hostname)" = "$(docker exec $N hostname)" ] && echo hostname
docker exec $N touch /made; nsenter -t $p -m /bin/busybox ls /made`, want: "1\n1\nhostname\n/made"},
	{name: "connect-again", script: `docker network create --label row=$N $N >/dev/null; run -d --name $N busybox sleep 1000 >/dev/null; docker network disconnect bridge $N
only() { [ "$(docker exec $N ls /sys/class/net | tr '\n' ' ')" = "$1" ]; }; until_ only "lo "; docker network connect $N $N; until_ docker exec $N ping -c1 -W1 $(docker network inspect -f '{{(index .IPAM.Config 0).Gateway}}' $N); docker exec $N ip route | grep -c ^default`, want: "1"},
	{name: "containers-namespaces", script: `run -d --name $N --ipc shareable busybox sleep 1000 >/dev/null; for o in "--network container:$N" "--ipc container:$N" "--pid container:$N"; do run --rm $o busybox echo ok 2>err; echo $?; refusal err; done; docker exec $N echo ex`, want: "ok\n0\nok\n0\nok\n0\nex"},
	{name: "published-from-outside", short: true, script: outside + `docker network create --ipv6 --subnet fd00:75::/64 --label row=$N $N >/dev/null
for n in bridge $N; do docker rm -fv $N >/dev/null 2>&1; run -d --name $N --network $n -p 80 -p 53/udp busybox sh -c 'head -c 3000000 /dev/zero >/tmp/i; httpd -h /tmp -p [::]:80; exec echod 53' >/dev/null
port() { docker port $N $1 | grep -F "$2" | sed 's/.*://'; }; w4=$(port 80/tcp 0.0.0.0) w6=$(port 80/tcp ::) u4=$(port 53/udp 0.0.0.0) u6=$(port 53/udp ::)
for a in 172.30.77.1:$w4 [::1]:$w6 [fd00:76::1]:$w6; do until_ curl -fsg http://$a/i; curl -fsg http://$a/i | wc -c; done
for a in 172.30.76.1:$w4 [fd00:76::1]:$w6; do until_ $out curl -fsg http://$a/i; $out curl -fsg http://$a/i | wc -c; done
for a in 172.30.76.1/$u4 fd00:76::1/$u6; do until_ $out bash -c "$ask" ask $a; $out bash -c "$ask" ask $a; done; done`,
		want: strings.Repeat(strings.Repeat("3000000\n", 5)+strings.Repeat("answer q\n", 2), 2)},
}

// outside is another machine, as far as the engine can tell: a network namespace that
// a veth pair connects. ask sends a datagram from there.
const outside = `
out="ip netns exec $N"; ip netns add $N; ends() { ip netns del $N; }; trap ends EXIT
ip link add out0 type veth peer name eth0 netns $N; ip addr add 172.30.76.1/24 dev out0; ip -6 addr add fd00:76::1/64 nodad dev out0; ip link set out0 up
ip -n $N addr add 172.30.76.2/24 dev eth0; ip -n $N -6 addr add fd00:76::2/64 nodad dev eth0; ip -n $N link set eth0 up
ask='exec 3<>/dev/udp/$1 && echo q >&3 && timeout 2 head -n 1 <&3'
`
