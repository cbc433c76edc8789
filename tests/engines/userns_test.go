package engines

import "testing"

func TestDockerUserns(t *testing.T) { runRows(t, usernsRows, dockerAfter) }

// remapped starts a dockerd of its own, whose containers have a user namespace.
// The machine's users get a range of ids for it.
const remapped = `
r=/run/$N; mkdir -p $r/v; chown 200000:200000 $r/v; echo '{}' >$r/daemon.json
for f in subuid subgid; do echo nobody:200000:65536 >$r/$f; touch /etc/$f; mount --bind $r/$f /etc/$f; done
setsid /usr/sbin/dockerd --config-file $r/daemon.json --data-root $r/data --exec-root $r/exec --pidfile $r/pid -H unix://$r/sock --containerd $ENGINES_DIR/containerd/containerd.sock --containerd-namespace $N --containerd-plugins-namespace $N-plugins \
	--bridge none --iptables=false --userns-remap nobody:nogroup --add-runtime runv=$RUNV --exec-opt native.cgroupdriver=cgroupfs --oom-score-adjust 0 >$r/log 2>&1 </dev/null & p=$!
ends() { kill $p; wait $p; umount /etc/subuid /etc/subgid; rm -rf $r; }; trap ends EXIT
export DOCKER_HOST=unix://$r/sock; until_ docker info; docker import $ENGINES_DIR/busybox.tar busybox >/dev/null
`

var usernsRows = []row{
	{name: "remap", script: remapped + `run --rm --network none -v $r/v:/v busybox sh -c 'id -u; tr -s " " </proc/self/uid_map; touch /x /v/f; stat -c %u /x /v/f'; stat -c %u $r/v/f
run --rm --network none --userns host busybox sh -c 'tr -s " " </proc/self/uid_map'; run -d --name $N --network none busybox sleep 1000 >/dev/null; docker exec -u nobody $N id -u; docker cp $r/daemon.json $N:/; docker exec $N stat -c %u /daemon.json; docker rm -f $N >/dev/null; echo $?`,
		want: "0\n 0 200000 65536\n0\n0\n200000\n 0 0 4294967295\n65534\n0\n0"},
}
