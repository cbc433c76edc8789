package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/tests/harness"
)

// on has a command run in a mount namespace of its own, which a script has made
// a host of another kind. The script's working directory is for its own use.
func on(t *testing.T, r *harness.Runtime, script string, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Skipf("%v (try: apt-get install util-linux)", err)
	}
	dir, err := os.MkdirTemp(r.Dir, "host")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path, cmd.Dir = unshare, dir
	cmd.Args = append([]string{"unshare", "--mount", "--propagation", "private", "sh", "-euc", script + "\nexec \"$@\"", "sh"}, cmd.Args...)
	return cmd
}

// withoutKVM makes a host whose processor could, but which has no /dev/kvm, as
// its module is not loaded or it is a container that was not given it.
const withoutKVM = `
	printf 'processor\t: 0\nflags\t\t: fpu vmx svm\n' >cpuinfo
	mount -n --bind cpuinfo /proc/cpuinfo
	mkdir dev
	mount -n -t tmpfs -o mode=755 dev dev
	for f in null zero full random urandom tty; do touch dev/$f; mount -n --bind /dev/$f dev/$f; done
	for d in pts shm; do mkdir dev/$d; mount -n --rbind /dev/$d dev/$d; done
	ln -s pts/ptmx dev/ptmx
	mount -n --rbind dev /dev
	[ ! -e /dev/kvm ]
`

// chosenBackend are the ways to choose a backend, and one that chooses none.
func chosenBackend(name string) []choice {
	return []choice{
		{"flag", []string{"--backend", name}, "", nil, ""},
		{"environment", nil, name, nil, ""},
		{"annotation", nil, "", func(s *specs.Spec) { s.Annotations = map[string]string{"io.runv.backend": name} }, ""},
		{"config.toml", nil, "", nil, "cp -a /etc etc; mkdir -p etc/runv; echo 'backend = \"" + name + "\"' >etc/runv/config.toml\n" +
			"mount -n --bind etc /etc\n"},
	}
}

// choice is one way to choose a backend.
type choice struct {
	name   string
	flags  []string
	env    string // RUNV_BACKEND
	change harness.Change
	script string // for the host
}

// run runs a bundle's workload on a host, with what was chosen.
func (c choice) run(t *testing.T, r *harness.Runtime, host string) harness.Result {
	t.Helper()
	r.Flags = c.flags
	b := r.NewBundle(harness.Shell("echo ran; exit 7"))
	if c.change != nil {
		b.Change(t, c.change)
	}
	cmd := r.Command("run", "--bundle", b.Dir, r.NewID())
	cmd.Env = append(cmd.Env, "RUNV_BACKEND="+c.env)
	return r.Finish(on(t, r, host+c.script, cmd))
}

// TestNoKVM: the guest is emulated, and the log says so and what would help.
func TestNoKVM(t *testing.T) {
	if os.Getenv("RUNV_KVMHOST") != "" {
		t.Skip("emulation under emulation is too slow (try: make test-integration)")
	}
	choices := append(chosenBackend("auto"), chosenBackend("qemu")[0], choice{name: "nothing chosen"})
	for _, c := range choices {
		t.Run(strings.Join(append(c.flags, c.name), " "), func(t *testing.T) {
			r := newRuntime(t)
			log := filepath.Join(r.Dir, "log")
			c.flags = append(c.flags, "--log", log)
			got := c.run(t, r, withoutKVM)
			if got.Stdout != "ran\n" || got.Stderr != "" || got.Status != 7 {
				t.Errorf("got %+v, want status 7", got)
			}
			data, err := os.ReadFile(log)
			if err != nil || strings.Count(string(data), "level=") != 1 {
				t.Errorf("log: got %q, %v, want one line", data, err)
			}
			for _, want := range []string{"level=warning", "emulated and slow", "/dev/kvm: no such file or directory", "load the kvm module"} {
				if !strings.Contains(string(data), want) {
					t.Errorf("log: got %q, want %q in it", data, want)
				}
			}
		})
	}
}

// TestNoKVMButAskedFor: nothing else is run in its place.
func TestNoKVMButAskedFor(t *testing.T) {
	for _, c := range chosenBackend("kvm") {
		t.Run(c.name, func(t *testing.T) {
			r := newRuntime(t)
			fails(t, c.run(t, r, withoutKVM), "backend kvm: ", "/dev/kvm: no such file or directory", "load the kvm module", "--backend auto does without")
		})
	}
}

// fails checks that a command failed soon, with one error that has the words.
func fails(t *testing.T, got harness.Result, words ...string) {
	t.Helper()
	if got.Status != 1 || got.Stdout != "" || got.Took > noticed {
		t.Errorf("got %+v, want status 1 soon", got)
	}
	if strings.Count(got.Stderr, "level=error") != 1 || strings.Count(got.Stderr, "\n") != 1 {
		t.Errorf("got %q, want one error", got.Stderr)
	}
	for _, want := range words {
		if !strings.Contains(got.Stderr, want) {
			t.Errorf("got %q, want %q in it", got.Stderr, want)
		}
	}
}

// TestNoQEMU: on a host with neither, the error says what to install.
func TestNoQEMU(t *testing.T) {
	const withoutQEMU = "mount -n -t tmpfs empty /usr/bin"
	for _, tt := range []struct {
		name   string
		script string
		path   string // PATH
		status int    // 1: it fails
	}{
		{"installed", "", "/usr/bin:/bin", 7},
		// Engines may call us without one.
		{"not in the path", "", "/no/such", 7},
		{"no path", "", "", 7},
		{"not installed", withoutQEMU, "/usr/bin:/bin", 1},
		{"not installed, no path", withoutQEMU, "", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRuntime(t)
			b := r.NewBundle(harness.Shell("echo ran; exit 7"))
			cmd := r.Command("--backend", "qemu", "run", "--bundle", b.Dir, r.NewID())
			// The script needs the path that it has.
			script := tt.script + "\nexport PATH='" + tt.path + "'"
			got := r.Finish(on(t, r, script, cmd))
			if tt.status == 1 {
				fails(t, got, "qemu-system-x86_64", "apt-get install qemu-system-x86", "RUNV_QEMU")
				return
			}
			got.Took = 0
			if diff := cmp.Diff(harness.Result{Stdout: "ran\n", Status: tt.status}, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
