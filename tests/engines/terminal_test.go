package engines

import "testing"

func TestDockerTerminal(t *testing.T) { runRows(t, dockerTerminalRows, dockerAfter) }
func TestPodmanTerminal(t *testing.T) { runRows(t, podmanTerminalRows, podmanAfter) }
func TestCtrTerminal(t *testing.T)    { runRows(t, ctrTerminalRows, ctrAfter) }

// sizes has a shell that waits for its terminal's first size and says so, then
// waits for SIGWINCH and the second size. resized runs a command line with it in
// a terminal, whose rows change once READY succeeds. One ioctl must do: of two
// in a row podman may lose one.
const sizes = `
sized='trap "w=winch" WINCH; is() { [ "$(stty size 2>/dev/null)" = "$1" ]; }; until is "33 77"; do sleep 0.1; done; w=; touch /ready; until is "44 77" && [ "$w" ]; do sleep 0.1; done; stty size; echo $w; exit 5'
resized() {
	printf '%s\n' 'stty rows 33 cols 77' '(until eval "$READY" >/dev/null 2>&1; do sleep 0.1; done; stty rows 44 </dev/tty) &' 'eval "$WHAT"; echo $?; wait' >both
	READY=$1 WHAT="$2 sh -c '$sized'" ptyrun "bash both"
}
`

// typed sends what is typed after FILE has been written to the terminal of a command line.
const typed = `
typed() { mkfifo keys; exec 5<>keys; { until_ test -s "$1"; printf "$2" >&5; } & script -qec "$3" /dev/null <keys; }
`

var dockerTerminalRows = []row{
	{name: "resize-run", script: sizes + `resized "docker exec $N test -e /ready" "docker run --runtime $RT --label row=$N --name $N --rm -it busybox"`, want: "44 77\nwinch\n5"},
	{name: "resize-exec", short: true, script: sizes + `run -d --name $N busybox sleep 1000 >/dev/null; resized "docker exec $N test -e /ready" "docker exec -it $N"`, want: "44 77\nwinch\n5"},
	{name: "interrupt", script: typed + `mkdir v; typed v/up '\003' "docker run --runtime $RT --label row=$N -v $PWD/v:/v --rm -it busybox sh -c 'stty -echo; trap \"echo int; exit 9\" INT; echo up >/v/up; while :; do sleep 0.1; done'; echo \$?"`, want: "int\n9"},
	{name: "detach-keys", script: typed + `mkdir v; typed v/up '\020\021' "docker run --runtime $RT --label row=$N -v $PWD/v:/v --name $N -it busybox sh -c 'echo up >/v/up; while :; do sleep 0.1; done'" >/dev/null; state $N; docker exec $N echo ex`, want: "running 0\nex"},
}

var podmanTerminalRows = []row{
	{name: "resize-run", script: sizes + `resized "podman exec $N test -e /ready" "podman --runtime $RT run --label row=$N --name $N --rm -it busybox"`, want: "44 77\nwinch\n5"},
	{name: "resize-exec", short: true, script: sizes + `prun -d --name $N busybox sleep 1000 >/dev/null; resized "podman exec $N test -e /ready" "podman exec -it $N"`, want: "44 77\nwinch\n5"},
}

var ctrTerminalRows = []row{
	{name: "resize-run", script: sizes + `resized "ctr task exec --exec-id e\$RANDOM $N test -e /ready" "ctr run --runc-binary $RUNTIME --rm -t docker.io/library/busybox:latest $N"`, want: "44 77\nwinch\n5"},
	{name: "resize-exec", short: true, script: sizes + `crun -d docker.io/library/busybox:latest $N sleep 1000; resized "ctr task exec --exec-id e\$RANDOM $N test -e /ready" "ctr task exec -t --exec-id f $N"`, want: "44 77\nwinch\n5"},
}
