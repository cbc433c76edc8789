package engines

import "testing"

func TestPodmanNetwork(t *testing.T) {
	runRows(t, podmanNetworkRows, podmanAfter+podmanNetworksAfter)
}
func TestCtrPasta(t *testing.T) { runRows(t, pastaRows, ctrAfter) }

// named starts a name server on the loopback, which knows one name, and has the
// machine's resolv.conf name it, until the row ends.
const named = `
mkdir named; echo nameserver 127.0.0.1 >named/resolv.conf; mount --bind named/resolv.conf /etc/resolv.conf
dnsmasq -k -C /dev/null --user=root --pid-file=$PWD/named/pid --no-resolv --no-hosts --bind-interfaces --listen-address=127.0.0.1 --address=/name.example/192.0.2.7 2>named/log & named=$!
trap 'kill $named; wait $named; umount /etc/resolv.conf' EXIT
`

// podmanNetworkRows are the networks that podman can make besides its CNI bridge:
// slirp4netns's, which is a tap, and netavark's.
var podmanNetworkRows = []row{
	{name: "slirp4netns", short: true, script: `mkdir w; echo page >w/i; busybox httpd -f -p 127.0.0.1:8070 -h w & h=$!; trap 'kill $h' EXIT
prun --rm --cap-add net_raw --network slirp4netns:allow_host_loopback=true busybox sh -c 'ls /sys/class/net; cat /sys/class/net/tap0/mtu; ip route | grep ^default; ping -c1 -W5 10.0.2.2 >/dev/null && echo pings; wget -q -O - http://10.0.2.2:8070/i'
prun --rm --network slirp4netns busybox sh -c 'wget -T 5 -q -O - http://10.0.2.2:8070/i || echo hidden' 2>/dev/null`,
		want: "lo\ntap0\n65520\ndefault via 10.0.2.2 dev tap0 \npings\npage\nhidden"},
	{name: "slirp4netns-names", script: named + `prun --rm --cap-add net_raw --network slirp4netns:allow_host_loopback=true busybox sh -c 'grep -m1 nameserver /etc/resolv.conf; nslookup -type=a name.example 2>&1 | grep -A 1 ^Name; ping -4 -c 1 -w 1 name.example | head -n 1'`,
		want: "nameserver 10.0.2.3\nName:\tname.example\nAddress: 192.0.2.7\nPING name.example (192.0.2.7): 56 data bytes"},
	{name: "slirp4netns-publish", short: true, script: `prun -d --name $N -p 127.0.0.1:8071:80 --network slirp4netns:port_handler=slirp4netns busybox sh -c 'head -c 3000000 /dev/zero >/tmp/i; exec httpd -f -h /tmp' >/dev/null
until_ curl -fs 127.0.0.1:8071/i; curl -fs 127.0.0.1:8071/i | wc -c`, want: "3000000"},
	{name: "slirp4netns-rootlessport", script: `prun -d --name $N -p 127.0.0.1:8071:80 --network slirp4netns busybox sh -c 'echo page >/tmp/i; httpd -h /tmp; touch /up; exec sleep 1000' >/dev/null; until_ podman exec $N test -e /up; curl -fs -m 5 127.0.0.1:8071/i || echo none`, want: "page"},
	{name: "netavark", short: true, script: `sed 's/"cni"/"netavark"/' /etc/containers/containers.conf >containers.conf; export CONTAINERS_CONF=$PWD/containers.conf; RT=$RUNTIME
podman network create --ipv6 --label row=$N $N >/dev/null; prun -d --name $N-1 --network $N --network-alias web -p 127.0.0.1:8072:80 busybox sh -c 'echo page >/tmp/i; exec httpd -f -p [::]:80 -h /tmp' >/dev/null
prun --rm --network $N --cap-add net_raw busybox sh -c 'grep -c nameserver.*10.89 /etc/resolv.conf; until wget -q -O - http://web/i; do sleep 0.2; done; ping -6 -c1 -W5 '$N-1' >/dev/null && echo pings'
curl -fs 127.0.0.1:8072/i; podman rm -f -t 0 $N-1 >/dev/null; podman network rm -f $N >/dev/null; echo $?`, want: "1\npage\npings\npage\n0"},
}

// pasta has a network namespace, near, whose only interface is the tap of pasta;
// that is in another one, far, as pasta wants an interface with a default route.
const pasta = `
far="ip netns exec $N-far"; ip netns add $N-far; ip netns add $N-near; started=
ends() { kill $started; wait $started; ip netns del $N-far; ip netns del $N-near; }; trap ends EXIT
for c in "set lo up" "add ext type veth peer name peer" "set peer up" "set ext up"; do $far ip link $c; done
$far ip addr add 192.0.2.2/24 dev ext; $far ip -6 addr add fd00:79::2/64 nodad dev ext; $far ip route add default via 192.0.2.1; $far ip -6 route add default via fd00:79::1
mkdir w; echo page >w/i; for a in 127.0.0.1 [::1]; do $far busybox httpd -f -p $a:8070 -h w & started="$started $!"; done
$far pasta --foreground --quiet --runas 0 --config-net -t 8071 --netns /run/netns/$N-near & started="$started $!"
is() { ip -n $N-near addr show ext | grep -q 192.0.2.2; }; until_ is
`

// The host is what guests take for the router (pasta(1)). It is reached by IPv4, by
// IPv6, and from the host at the port that is passed on.
var pastaRows = []row{
	{name: "pasta", short: true, script: pasta + `crun --rm --with-ns network:/run/netns/$N-near docker.io/library/busybox:latest $N sh -c '
ls /sys/class/net; cat /sys/class/net/ext/mtu; ip -4 -o addr show ext | grep -o "192.0.2.2/24"; ip route | grep ^default; echo page2 >/tmp/i; httpd -p 8071 -h /tmp
for a in 192.0.2.1 [fd00:79::1]; do wget -q -O - http://$a:8070/i; done; until test -e /tmp/got; do sleep 0.1; done' >out & c=$!
until_ $far curl -fs -m 5 http://192.0.2.2:8071/i; $far curl -fs -m 5 http://192.0.2.2:8071/i; until_ ctr task exec --exec-id e$RANDOM $N touch /tmp/got </dev/null; wait $c; cat out`,
		want: "page2\next\nlo\n65520\n192.0.2.2/24\ndefault via 192.0.2.1 dev ext \npage\npage"},
}
