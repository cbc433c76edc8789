package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/libvm/kernel/kerneltest"
	"runv/tests/harness"
)

func itoa(n int) string { return strconv.Itoa(n) }

// TestBadConfig: each is refused before a VM is started, and says why.
func TestBadConfig(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Args("true"))
	good, err := os.ReadFile(filepath.Join(b.Dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		config string // the whole text; empty: the changed spec
		change harness.Change
		want   string
	}{
		{"broken", "{\n  \"ociVersion\": \"1.0.2\",\n  \"root\": {,\n}\n", nil, "3:12"},
		{"cut off", string(good[:len(good)/2]), nil, "config.json"},
		{"empty", " ", nil, "config.json"},
		{"wrong type", `{"ociVersion": "1.0.2", "process": {"args": "true"}}`, nil, "process.args"},
		{"version", "", func(s *specs.Spec) { s.Version = "2.0.0" }, "2.0.0"},
		{"no version", "", func(s *specs.Spec) { s.Version = "" }, "ociVersion"},
		{"no rootfs", "", func(s *specs.Spec) { s.Root.Path = "nosuch" }, "nosuch"},
		{"no root", "", func(s *specs.Spec) { s.Root = nil }, "root"},
		{"rootfs is a file", "", func(s *specs.Spec) { s.Root.Path = "config.json" }, "config.json"},
		{"relative cwd", "", func(s *specs.Spec) { s.Process.Cwd = "tmp" }, "absolute path"},
		{"no process", "", func(s *specs.Spec) { s.Process = nil }, "process"},
		{"no args", "", func(s *specs.Spec) { s.Process.Args = nil }, "args"},
		{"hooks", "", func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "bin/true"}}} }, "hooks.poststop[0]: path "},
		{"mount source", "", func(s *specs.Spec) { s.Mounts = append(s.Mounts, bind("/no/such", "/m")) }, "/no/such"},
		{"mount type", "", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/m", Type: "nosuchfs", Source: "x"})
		}, "nosuchfs"},
		{"sysctl", "", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"vm.swappiness": "1"} }, "vm.swappiness"},
		{"rlimit", "", func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_X"}} }, "RLIMIT_X"},
		{"annotation", "", func(s *specs.Spec) { s.Annotations = map[string]string{"io.runv.memroy": "1"} }, "io.runv.memroy"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.In(t)
			if tt.config != "" {
				b.Write(t, tt.config)
			} else {
				if err := json.Unmarshal(good, &b.Spec); err != nil {
					t.Fatal(err)
				}
				b.Change(t, tt.change)
				b.Spec = new(specs.Spec)
			}
			got := r.Run("create", "--bundle", b.Dir, r.NewID())
			if got.Status != 1 || !strings.Contains(got.Stderr, tt.want) || strings.Count(got.Stderr, "level=error") != 1 {
				t.Errorf("got status %d, stderr %q, want %q in it", got.Status, got.Stderr, tt.want)
			}
			if got.Took > 5*time.Second {
				t.Errorf("it took %v", got.Took)
			}
		})
	}
	if err := os.Remove(filepath.Join(b.Dir, "config.json")); err != nil {
		t.Fatal(err)
	}
	refused(t, r, "config.json", 1, "create", "--bundle", b.Dir, r.NewID())
	refused(t, r, "no such file or directory", 1, "create", "--bundle", "/no/such", r.NewID())
}

func TestUnknownFieldsAreKept(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle()
	var config map[string]any
	data, err := json.Marshal(b.Spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &config); err != nil {
		t.Fatal(err)
	}
	config["com.example.future"] = map[string]any{"a": 1}
	config["process"].(map[string]any)["future"] = []int{1}
	config["process"].(map[string]any)["args"] = []string{"echo", "ran"}
	data, err = json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	b.Write(t, string(data))
	if got := r.Must("run", "--bundle", b.Dir, r.NewID()); got != "ran\n" {
		t.Errorf("got %q", got)
	}
	after, err := os.ReadFile(filepath.Join(b.Dir, "config.json"))
	if err != nil || string(after) != string(data) {
		t.Errorf("config.json was changed: %v", err)
	}
}

func TestBadIDs(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Args("true"))
	for _, id := range []string{"../x", "a/b", ".", "..", "", "a b", "-x\n", strings.Repeat("x", 1025)} {
		got := r.Run("create", "--bundle", b.Dir, "--", id)
		if got.Status != 1 || !strings.Contains(got.Stderr, "level=error") {
			t.Errorf("id %.20q: got status %d, stderr %q", id, got.Status, got.Stderr)
		}
	}
	if _, err := os.Stat(filepath.Join(r.Dir, "x")); err == nil {
		t.Error("an id led out of the root")
	}
}

// TestErrorLog: engines read the error from --log.
func TestErrorLog(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Args("nosuch"))
	log := filepath.Join(r.Dir, "log.json")
	r.Flags = []string{"--log", log, "--log-format", "json"}
	got := r.Run("create", "--bundle", b.Dir, r.NewID())
	if got.Status != 1 {
		t.Errorf("status: got %d, want 1", got.Status)
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var errs []string
	for line := range strings.Lines(string(data)) {
		var l struct{ Level, Msg, Time string }
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Errorf("line %q: %v", line, err)
		}
		if _, err := time.Parse(time.RFC3339, l.Time); err != nil {
			t.Errorf("time: %v", err)
		}
		if l.Level == "error" {
			errs = append(errs, l.Msg)
		}
	}
	want := `runv create failed: unable to start container process: exec: "nosuch": executable file not found in $PATH`
	if len(errs) != 1 || errs[0] != want {
		t.Errorf("got %q, want %q", errs, want)
	}
	if !strings.Contains(got.Stderr, `executable file not found`) {
		t.Errorf("stderr: got %q", got.Stderr)
	}
}

// TestNoVM: what a VM needs is missing, or is not what it should be.
func TestNoVM(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Args("true"))
	text := filepath.Join(r.Dir, "text")
	if err := os.WriteFile(text, []byte("not a kernel\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	spins := filepath.Join(r.Dir, "spins")
	if err := os.WriteFile(spins, spinningKernel(), 0o600); err != nil {
		t.Fatal(err)
	}
	halts := filepath.Join(r.Dir, "halts")
	if err := os.WriteFile(halts, haltingKernel(), 0o600); err != nil {
		t.Fatal(err)
	}
	resets := filepath.Join(r.Dir, "resets")
	if err := os.WriteFile(resets, resettingKernel(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		env    string // words of NAME=VALUE
		change harness.Change
		want   string // a regular expression
		limit  time.Duration
	}{
		{"kernel is missing", "RUNV_KERNEL=/no/such", nil, `/no/such.*no such file or directory`, 5 * time.Second},
		{"kernel is a directory", "RUNV_KERNEL=/etc", nil, `/etc`, 5 * time.Second},
		{"kernel is no kernel", "RUNV_KERNEL=" + text, nil, `text`, 5 * time.Second},
		{"kernel spins", "RUNV_KERNEL=" + spins, nil, `the guest did not boot.*CPU time.*console is empty`, 60 * time.Second},
		{"kernel halts", "RUNV_KERNEL=" + halts, nil, `the guest did not boot: it has been idle.*console is empty`, 60 * time.Second},
		{"kernel resets", "RUNV_KERNEL=" + resets, nil, `the guest did not boot`, 20 * time.Second},
		{"no init", "", kernelParams("rdinit=/nosuch"), `the guest did not boot.*console: .*(No working init|not syncing|nosuch)`, 20 * time.Second},
		{"no qemu", "RUNV_BACKEND=qemu RUNV_QEMU=/no/such", nil, `/no/such`, 5 * time.Second},
		{"qemu is no qemu", "RUNV_BACKEND=qemu RUNV_QEMU=/bin/false", nil, `qemu exited with status 1`, 10 * time.Second},
		{"qemu cannot run", "RUNV_BACKEND=qemu RUNV_QEMU=" + text, nil, `permission denied|exec format error`, 5 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.In(t)
			spec := *b.Spec
			defer func() { b.Spec = &spec; b.Change(t) }()
			if tt.change != nil {
				b.Change(t, tt.change)
			}
			cmd := r.Command("create", "--bundle", b.Dir, r.NewID())
			cmd.Env = append(append(cmd.Env, "RUNV_BOOT_LIMIT=8"), strings.Fields(tt.env)...)
			got := r.Finish(cmd)
			if ok, err := regexp.MatchString(tt.want, got.Stderr); got.Status != 1 || !ok || err != nil || strings.Count(got.Stderr, "level=error") != 1 {
				t.Errorf("got status %d, stderr %q, want %q", got.Status, got.Stderr, tt.want)
			}
			t.Logf("after %v: %s", got.Took.Round(10*time.Millisecond), got.Stderr)
			if limit := harness.Scaled(tt.limit); got.Took > limit {
				t.Errorf("it took %v, want at most %v", got.Took, limit)
			}
		})
	}
}

func kernelParams(params ...string) harness.Change {
	return func(s *specs.Spec) {
		s.VM = &specs.VM{Kernel: specs.VMKernel{Parameters: params}}
	}
}

func spinningKernel() []byte { return kerneltest.PVH(0xeb, 0xfe) } // jmp .

func haltingKernel() []byte { return kerneltest.PVH(0xfa, 0xf4, 0xeb, 0xfd) } // cli; hlt; jmp -1

// resettingKernel loads an empty IDT and traps: a triple fault.
func resettingKernel() []byte {
	return kerneltest.PVH(0x6a, 0x00, 0x6a, 0x00, 0x0f, 0x01, 0x1c, 0x24, 0xcc, 0xeb, 0xfe)
}

func TestBadStateDirectory(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Args("true"))
	mount := func(t *testing.T, flags uintptr, data string) {
		t.Helper()
		if err := os.MkdirAll(r.Root, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("state", r.Root, "tmpfs", flags, data); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(r.Root, 0); err != nil {
				t.Errorf("unmount: %v", err)
			}
		})
	}
	t.Run("read-only", func(t *testing.T) {
		r.In(t)
		mount(t, unix.MS_RDONLY, "")
		refused(t, r, "read-only file system", 1, "create", "--bundle", b.Dir, r.NewID())
	})
	t.Run("full", func(t *testing.T) {
		r.In(t)
		mount(t, 0, "size=4k")
		if err := os.WriteFile(filepath.Join(r.Root, "fill"), make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, r, "no space left on device", 1, "create", "--bundle", b.Dir, r.NewID())
		if entries, err := os.ReadDir(r.Root); err != nil || len(entries) != 1 {
			t.Errorf("left: %v, %v", entries, err)
		}
	})
	t.Run("no inodes", func(t *testing.T) {
		r.In(t)
		for n := 2; n < 6; n++ {
			func() {
				if err := os.MkdirAll(r.Root, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := unix.Mount("state", r.Root, "tmpfs", 0, "nr_inodes="+itoa(n)); err != nil {
					t.Fatal(err)
				}
				defer unix.Unmount(r.Root, 0) //nolint:errcheck // the harness sees what is left
				id := r.NewID()
				got := r.Run("run", "--bundle", b.Dir, id)
				t.Logf("%d inodes: %+v", n, got)
				if got.Status != 0 && !strings.Contains(got.Stderr, "no space left on device") {
					t.Errorf("%d inodes: %+v", n, got)
				}
				if entries, err := os.ReadDir(r.Root); err != nil || len(entries) != 0 {
					t.Errorf("%d inodes left: %v, %v", n, entries, err)
				}
			}()
		}
	})
	t.Run("a file", func(t *testing.T) {
		r.In(t)
		if err := os.RemoveAll(r.Root); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(r.Root, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, r, "not a directory", 1, "create", "--bundle", b.Dir, r.NewID())
		if err := os.Remove(r.Root); err != nil {
			t.Fatal(err)
		}
	})
}
