package engines

import (
	"bytes"
	"cmp"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// rowLimit bounds one row: some of them start a dozen VMs, under emulation.
const rowLimit = 3 * time.Minute

// prelude is what the scripts of all rows may use.
const prelude = `
set -u -o pipefail
docker() { /usr/bin/docker "$@"; }
run() { docker run --runtime "$RT" --label row="$N" "$@"; }
prun() { podman --runtime "$RT" run --label row="$N" "$@"; }
crun() { ctr run --runc-binary "$RUNTIME" "$@" </dev/null; }
# until COMMAND… waits until it succeeds; the row's deadline ends it.
until_() { until "$@" >/dev/null 2>&1; do sleep 0.1; done; }
state() { docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' "$@"; }
# configured has dockerd reload its configuration with a further member, or without.
configured() {
	local d=$ENGINES_DIR/docker n
	reloads() { grep -c 'Reloaded configuration' $ENGINES_DIR/docker.log; }
	n=$(reloads)
	{ head -c -2 $d/daemon.base; echo "${1:+, $1} }"; } >$d/daemon.json
	kill -HUP $(cat $d/pid)
	until [ $(reloads) -gt $n ]; do sleep 0.1; done
}
# refusal prints what a runtime's error says of a field.
refusal() { grep -oE 'linux\.[a-zA-Z.]+: .*' $1 | sed -E 's/[0-9a-f]{64}/ID/g; s/[0-9]{2,}/PID/g; s/: unknown\.$//'; }
# ptyrun runs a command line under a pseudo-terminal, as a person's.
ptyrun() { script -qec "$1" /dev/null 0<> <(:); }
loop='trap "echo term; exit 0" TERM; trap "echo usr1" USR1; echo up; while :; do sleep 0.1; done'
`

// row is one thing that a user does, and what they see of it.
type row struct {
	name   string
	script string // bash; its standard output is compared
	want   string
	limit  time.Duration // 0 means rowLimit
	short  bool          // is run with -short, too: what most users do
}

// runtimes are those that every row is run with: runc is the control.
var runtimes = []string{"runc", "runv"}

func runRows(t *testing.T, rows []row, after string) {
	dir := os.Getenv("RUNV_ENGINES")
	if dir == "" {
		t.Skip("no engines (try: make test-engines)")
	}
	expected, err := readExpected()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if testing.Short() && !r.short {
				t.Skip("not one of the rows of -short")
			}
			for _, rt := range runtimes {
				t.Run(rt, func(t *testing.T) {
					e := expected[t.Name()]
					want := strings.TrimSpace(r.want)
					holds, err := e.holds()
					if err != nil {
						t.Fatal(err)
					}
					if holds {
						want = strings.TrimSpace(e.Want)
					}
					got, stderr := runRow(t, dir, rt, r, after)
					if got != want {
						t.Errorf("got:\n%s\nwant:\n%s\nstderr:\n%s", got, want, stderr)
					}
				})
			}
		})
	}
}

// runRow runs a script in a directory of its own, then what clears up after it.
// It returns what the script wrote, trimmed.
func runRow(t *testing.T, dir, rt string, r row, after string) (stdout, stderr string) {
	t.Helper()
	path := map[string]string{"runc": "/usr/sbin/runc", "runv": filepath.Join(dir, "bin", "runv")}[rt]
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	env := append(os.Environ(), "RT="+rt, "RUNTIME="+path, "N="+name)
	work := t.TempDir()
	defer func() {
		if _, out, err := bash(work, env, prelude+after, rowLimit); err != nil {
			t.Errorf("clearing up: %v: %s", err, out)
		}
	}()
	stdout, stderr, err := bash(work, env, prelude+r.script, cmp.Or(r.limit, rowLimit))
	if err != nil {
		t.Errorf("script: %v", err)
	}
	return strings.TrimSpace(strings.ReplaceAll(stdout, "\r", "")), stderr
}

var errDeadline = errors.New("did not end in time")

// bash runs a script in a process group of its own, which is killed after the limit.
func bash(dir string, env []string, script string, limit time.Duration) (stdout, stderr string, err error) {
	var out, errOut bytes.Buffer
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, &out, &errOut
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return "", "", err
	}
	expired := false
	timer := time.AfterFunc(limit, func() {
		expired = true
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	})
	err = cmd.Wait()
	if !timer.Stop() && expired {
		err = errDeadline
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		err = nil // what counts is what was seen
	}
	return out.String(), errOut.String(), err
}
