package engines

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// envCycles says how many containers TestDockerCycles is to start and remove.
// Without it they are few enough for the whole table: a hundred take minutes.
const (
	envCycles   = "RUNV_ENGINES_CYCLES"
	shortCycles = 15
	cyclesLimit = 20 * time.Minute
)

// TestDockerCycles starts containers and removes them, up to ten at a time, and
// looks for what they leave: processes, mounts, control groups, namespaces,
// interfaces, queueing disciplines, and files where engines and runtimes keep theirs.
func TestDockerCycles(t *testing.T) {
	if v := os.Getenv(envCycles); v == "" {
		t.Setenv(envCycles, strconv.Itoa(shortCycles))
	} else if n, err := strconv.Atoi(v); err != nil || n < 1 {
		t.Fatalf("%s=%q is not a number of containers", envCycles, v)
	}
	runRows(t, []row{{name: "run-and-remove", script: cycles, want: "clean", limit: cyclesLimit}}, dockerAfter)
}

// Files of network namespaces are dockerd's, which removes them once a minute;
// what they were is seen as a mount.
const cycles = `
seen() {
	ip -o link | cut -d: -f2; tc qdisc show | sort; cut -d' ' -f5 /proc/self/mountinfo | sort; find /sys/fs/cgroup -type d | sort
	find /run $ENGINES_DIR/docker/exec $ENGINES_DIR/containerd/state $ENGINES_DIR/docker/data/containers | grep -v /netns/ | sort
	find $ENGINES_DIR/docker/data -maxdepth 2 -mindepth 2 | sort; ps -e -o comm= | grep -E 'runv|qemu|runc|shim|docker-proxy' | sort; readlink /proc/[0-9]*/ns/net | sort -u
}
cycle() { for i in $(seq $1 10 $RUNV_ENGINES_CYCLES); do docker rm -f $(run -d busybox sleep 1000) >/dev/null || echo "$i failed"; done; }
run --rm busybox true; seen >before; for j in 1 2 3 4 5 6 7 8 9 10; do cycle $j & done; wait
settled() { seen >after; cmp -s before after; }; export -f settled seen; timeout 30 bash -c 'until settled; do sleep 0.2; done'; diff before after && echo clean
`
