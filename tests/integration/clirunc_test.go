package integration

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/tests/harness"
)

// sameCommands are calls of both runtimes, by the state of the container that CTR
// stands for. Where the installed runc has other words, or does otherwise, the
// reason stands behind "#": then only the statuses are compared.
var sameCommands = []struct {
	state string
	calls string
}{
	{"none", `
		state CTR
		start CTR
		exec CTR true
		delete CTR
		delete --force CTR
		kill CTR
		pause CTR
		resume CTR
		ps CTR
		exec "" true
		start CTR extra
		kill CTR KILL extra
		list extra
		list --format yaml
		frobnicate
		state --bogus CTR
		--log-format xml list
	`},
	{"created", `
		exec CTR echo hi
		resume CTR
		kill CTR 0
		ps -f yaml CTR
		pause CTR
		pause CTR
		exec CTR echo hi
		start CTR
		resume CTR
	`},
	{"running", `
		start CTR
		start CTR
		exec CTR echo hi
		exec CTR # runc 1.3 has other words
		exec CTR -- echo x
		exec -- CTR echo x
		exec CTR -x
		exec CTR nosuch
		exec CTR /etc # runc 1.2 says that it is a directory
		exec CTR /etc/passwd
		exec CTR ""
		exec CTR sh -c "exit 200"
		exec CTR sh -c "kill -9 $$"
		exec -u x CTR true # runc 1.3 has other words
		exec -u 1:x CTR true # runc 1.3 has other words
		exec -u 1:2 -g 5 CTR id
		exec -g -5 CTR true
		exec -g x CTR true
		exec --additional-gids 5,6 CTR id
		exec -e FOO CTR env # runc 1.3 has other words, and we name the place
		exec -e A=b,c CTR sh -c "echo $A"
		exec -e =x CTR true # runc 1.3 has other words, and we name the place
		exec --cwd tmp CTR pwd
		exec --cwd /none CTR pwd
		exec --cwd /tmp CTR pwd
		exec -t CTR true # whether the caller has a terminal
		exec -d -t CTR true
		exec --console-socket /x CTR true
		exec -d -t --console-socket /none CTR true
		exec -p /none.json CTR
		exec -p /dev/null CTR # we say where
		exec --cap CAP_FOO CTR true
		exec --cap CAP_NET_ADMIN CTR grep Cap /proc/self/status
		exec --no-new-privs=false CTR grep NoNew /proc/self/status
		exec --no-new-privs CTR grep NoNew /proc/self/status
		exec --process-label x CTR true
		exec --pid-file /none/x CTR true # the temporary name
		exec --ignore-paused CTR echo x
		delete CTR
		kill CTR 99
		kill CTR -1
		kill CTR 65
		kill CTR SIGFOO
		kill CTR SIGRTMIN+1
		kill CTR 64x
		kill CTR WINCH
		kill CTR sigCont
		kill CTR cld
		kill --all CTR CONT
		kill CTR CONT --all
		pause CTR
		pause CTR
		exec CTR true
		start CTR
		delete CTR
		resume CTR
		resume CTR
	`},
	{"stopped", `
		exec CTR true
		start CTR
		pause CTR
		resume CTR
		kill CTR 9
		kill --all CTR 9
		ps -f json CTR
		delete CTR
		delete CTR
	`},
}

// words splits a call as a shell would, but for what is in double quotes.
func words(call string) []string {
	var out []string
	for i, part := range strings.Split(call, `"`) {
		if i%2 == 1 {
			out = append(out, part)
		} else {
			out = append(out, strings.Fields(part)...)
		}
	}
	return out
}

var logMessage = regexp.MustCompile(`msg=("(?:[^"\\]|\\.)*"|\S+)`)

// messages are those of a log in text form, with our name.
func messages(stderr string) string {
	var out []string
	for _, m := range logMessage.FindAllStringSubmatch(stderr, -1) {
		out = append(out, strings.TrimSuffix(strings.Trim(m[1], `"`), `\n`))
	}
	return strings.ReplaceAll(strings.Join(out, "\n"), "runc", "runv")
}

// TestCommandsLikeRunc makes the same calls with both, and compares what they
// print, say and exit with.
func TestCommandsLikeRunc(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Args("sleep", "1000"), func(s *specs.Spec) {
		s.Process.Rlimits, s.Process.Env = nil, append(s.Process.Env, "A=")
	})
	root := filepath.Join(r.Dir, "runc")
	runc := func(args ...string) harness.Result {
		t.Helper()
		cmd := exec.Command("runc", append([]string{"--root", root}, args...)...)
		cmd.Dir = r.Dir
		return r.Finish(cmd)
	}
	theirs := r.NewID()
	create := exec.Command("runc", "--root", root, "create", "--bundle", b.Dir, "--pid-file", filepath.Join(r.Dir, "runc.pid"), theirs)
	if err := create.Run(); err != nil {
		t.Skipf("runc create: %v (try: apt-get install runc)", err)
	}
	pid := harness.ReadPid(t, filepath.Join(r.Dir, "runc.pid"))
	reaped := false
	defer func() {
		runc("delete", "--force", theirs)
		if !reaped {
			harness.Reap(t, pid)
		}
	}()
	ours := r.Create(b)
	missing := r.NewID()
	for _, part := range sameCommands {
		if part.state == "stopped" {
			runc("kill", theirs, "9")
			r.Must("kill", ours.ID, "9")
			harness.Reap(t, pid)
			ours.Wait()
			reaped = true
		}
		t.Run(part.state, func(t *testing.T) {
			r.In(t)
			for line := range strings.Lines(strings.TrimSpace(part.calls)) {
				call, reason, _ := strings.Cut(strings.TrimSpace(line), " # ")
				args := func(id string) []string {
					if part.state == "none" {
						id = missing
					}
					a := words(call)
					for i := range a {
						a[i] = strings.ReplaceAll(a[i], "CTR", id)
					}
					return a
				}
				want, got := runc(args(theirs)...), r.Run(args(ours.ID)...)
				if got.Status != want.Status {
					t.Errorf("%s: status %d, runc %d: %s", call, got.Status, want.Status, got.Stderr)
				}
				if reason != "" {
					continue
				}
				g := strings.ReplaceAll(messages(got.Stderr), ours.ID, "CTR")
				w := strings.ReplaceAll(messages(want.Stderr), theirs, "CTR")
				// Where the two have hints of their own behind runc's words.
				if g != w && !strings.HasPrefix(g, w+" (") {
					t.Errorf("%s: said %q, runc %q", call, g, w)
				}
				// Help goes to stderr with us: stdout is for data.
				if got.Stdout != want.Stdout && !strings.HasPrefix(want.Stdout, "Incorrect Usage") {
					t.Errorf("%s: printed %q, runc %q", call, got.Stdout, want.Stdout)
				}
			}
		})
	}
}
