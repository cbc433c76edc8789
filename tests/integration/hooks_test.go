package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/tests/harness"
)

// hook runs a script of the shell under a name of its own.
func hook(script string) specs.Hook {
	return specs.Hook{Path: "/bin/sh", Args: []string{"hook-name", "-c", script}, Env: []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "HOOK=yes"}}
}

// allHooks has one hook of each kind, from a function of its name and of the
// directory that it can write to.
func allHooks(dir string, script func(kind, dir string) specs.Hook) *specs.Hooks {
	one := func(kind, dir string) []specs.Hook {
		h := script(kind, dir)
		if kind == "startContainer" {
			h.Args[0] = "sh" // busybox is what it is called
		}
		return []specs.Hook{h}
	}
	return &specs.Hooks{
		Prestart:      one("prestart", dir), //lint:ignore SA1019 engines use it
		CreateRuntime: one("createRuntime", dir), CreateContainer: one("createContainer", dir),
		StartContainer: one("startContainer", "/tmp"), Poststart: one("poststart", dir), Poststop: one("poststop", dir),
	}
}

func kindOf(h *specs.Hooks, kind string) *[]specs.Hook {
	switch kind {
	case "prestart":
		//lint:ignore SA1019 engines use it
		return &h.Prestart
	case "createRuntime":
		return &h.CreateRuntime
	case "createContainer":
		return &h.CreateContainer
	case "startContainer":
		return &h.StartContainer
	case "poststart":
		return &h.Poststart
	}
	return &h.Poststop
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// Each hook runs once, when it should, where it should, and is told what it should be.
func TestHooks(t *testing.T) {
	r := newRuntime(t)
	dir := filepath.Join(r.Dir, "hooks")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b := r.NewBundle(harness.Shell("echo workload >> /tmp/order; read _; cat /tmp/startContainer; cat /mnt/theirs"), func(s *specs.Spec) {
		s.Annotations = map[string]string{"a": "b"}
		s.Hooks = allHooks(dir, func(kind, dir string) specs.Hook {
			return hook("cat > " + dir + "/" + kind + "; echo " + kind + " >> " + dir + `/order
				for n in mnt net pid ipc uts; do readlink /proc/self/ns/$n; done > ` + dir + "/ns-" + kind)
		})
		// What a hook mounts where the container will be is in the container.
		s.Hooks.CreateRuntime = append(s.Hooks.CreateRuntime, hook(`pid=$(sed 's/.*"pid":\([0-9]*\).*/\1/' `+dir+`/createRuntime)
			nsenter -t $pid -m mount -n -t tmpfs theirs `+s.Root.Path+`/mnt && nsenter -t $pid -m sh -c "echo of a hook > `+s.Root.Path+`/mnt/theirs"`))
	})
	b.Change(t, func(s *specs.Spec) {
		last := &s.Hooks.CreateRuntime[1].Args[2]
		*last = strings.ReplaceAll(*last, s.Root.Path+"/mnt", b.Rootfs+"/mnt")
		for i := range s.Hooks.StartContainer {
			s.Hooks.StartContainer[i].Env = nil // the container's, with its PATH
		}
	})
	for _, d := range []string{"mnt", "tmp"} {
		if err := os.MkdirAll(filepath.Join(b.Rootfs, d), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer outR.Close() //nolint:errcheck // only read
	c := r.Create(b, inR, outW)
	inR.Close()  //nolint:errcheck // the container's
	outW.Close() //nolint:errcheck // the container's
	if got, want := lines(t, dir+"/order"), []string{"prestart", "createRuntime", "createContainer"}; !cmp.Equal(got, want) {
		t.Errorf("hooks of create: got %q, want %q", got, want)
	}
	namespaces := strings.Fields(func() string {
		var all string
		for _, n := range []string{"mnt", "net", "pid", "ipc", "uts"} {
			l, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", c.PID, n))
			if err != nil {
				t.Fatal(err)
			}
			all += l + " "
		}
		return all
	}())
	if diff := cmp.Diff(namespaces, lines(t, dir+"/ns-createContainer")); diff != "" {
		t.Errorf("createContainer is not in the container's namespaces:\n%s", diff)
	}
	c.Start()
	if got, want := lines(t, dir+"/order")[3:], []string{"poststart"}; !cmp.Equal(got, want) {
		t.Errorf("hooks of start: got %q, want %q", got, want)
	}
	harness.Within(t, harness.Limit, "the workload runs", func() bool { return len(lines(t, b.Rootfs+"/tmp/order")) > 1 })
	if got, want := lines(t, b.Rootfs+"/tmp/order"), []string{"startContainer", "workload"}; !cmp.Equal(got, want) {
		t.Errorf("in the guest: got %q, want %q", got, want)
	}
	inW.Close() //nolint:errcheck // lets the workload end
	data, err := io.ReadAll(outR)
	if err != nil {
		t.Fatal(err)
	}
	out := string(data)
	if got := c.Wait(); got != 0 {
		t.Errorf("status %d, want 0", got)
	}
	if !strings.Contains(out, `"status":"created","pid":1,`) || !strings.HasSuffix(out, "of a hook\n") {
		t.Errorf("the workload saw %q, want the state of the startContainer hook and what a hook had mounted", out)
	}
	// The bundle may have changed, or be gone.
	if err := os.Remove(filepath.Join(b.Dir, "config.json")); err != nil {
		t.Fatal(err)
	}
	c.Delete()
	if got, want := lines(t, dir+"/order")[4:], []string{"poststop"}; !cmp.Equal(got, want) {
		t.Errorf("hooks of delete: got %q, want %q", got, want)
	}
	for kind, want := range map[string]specs.State{
		"prestart": {Status: "created", Pid: c.PID}, "createRuntime": {Status: "creating", Pid: c.PID}, "createContainer": {Status: "creating", Pid: 1},
		"poststart": {Status: "running", Pid: c.PID}, "poststop": {Status: "stopped"},
	} {
		want.Version, want.ID, want.Bundle, want.Annotations = b.Spec.Version, c.ID, b.Dir, map[string]string{"a": "b"}
		var got specs.State
		if err := json.Unmarshal([]byte(lines(t, dir+"/"+kind)[0]), &got); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("state of %s (-want +got):\n%s", kind, diff)
		}
	}
}

// TestHooksLikeRunc runs the same hooks under both, and compares what they see.
func TestHooksLikeRunc(t *testing.T) {
	r := newRuntime(t)
	see := func(what string) func(kind, dir string) specs.Hook {
		return func(kind, dir string) specs.Hook {
			// As its own first word a hook has the name that it was given.
			h := hook("exec >" + dir + "/" + kind + " 2>&1; echo $0; pwd; cat; echo; env | sort | grep -v -e ^SHLVL -e ^_= -e ^PWD; " + what)
			if kind != "prestart" {
				h.Env = nil
			}
			return h
		}
	}
	got := map[string]map[string]string{}
	for _, runtime := range []string{"runc", "runv"} {
		dir := filepath.Join(r.Dir, runtime+"-hooks")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		b := r.NewBundle(harness.Args("true"), func(s *specs.Spec) {
			s.Process.Rlimits, s.Process.Env = nil, []string{"PATH=/bin:/usr/bin:/sbin:/usr/sbin", "CONTAINER=yes"}
			s.Process.Cwd = "/bin"
			s.Hooks = allHooks(dir, see("id -u; umask"))
		})
		id := r.NewID()
		cmd := r.Command("run", "--bundle", b.Dir, id)
		if runtime == "runc" {
			cmd = exec.Command("runc", "--root", filepath.Join(r.Dir, "runc"), "run", "--bundle", b.Dir, id)
		}
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "CALLER=yes"}, r.Env...)
		if res := r.Finish(cmd); res.Status != 0 {
			if runtime == "runc" {
				t.Skipf("runc does not run here: %s", res.Stderr)
			}
			t.Fatalf("status %d: %s", res.Status, res.Stderr)
		}
		pid := regexp.MustCompile(`"pid":[0-9]{2,}`)
		got[runtime] = map[string]string{}
		for _, kind := range []string{"prestart", "createRuntime", "createContainer", "startContainer"} {
			path := filepath.Join(dir, kind)
			if kind == "startContainer" {
				path = filepath.Join(b.Rootfs, "tmp", kind)
			}
			text := strings.Join(lines(t, path), "\n")
			text = strings.NewReplacer(b.Dir, "BUNDLE", id, "ID").Replace(text)
			text = pid.ReplaceAllString(text, `"pid":N`)
			// The versions of the specification that we and runc are of; and the
			// first of the hooks, for which we follow the specification.
			text = regexp.MustCompile(`"ociVersion":"[^"]*"`).ReplaceAllString(text, "VERSION")
			if kind == "prestart" {
				text = strings.Replace(text, `"status":"created"`, `"status":"creating"`, 1)
			}
			got[runtime][kind] = text
		}
	}
	if diff := cmp.Diff(got["runc"], got["runv"]); diff != "" {
		t.Errorf("-runc +runv:\n%s", diff)
	}
}

// A hook that fails ends what it is part of, says why, and leaves nothing but a
// container that has been created to be deleted.
func TestHookFailures(t *testing.T) {
	for _, tt := range []struct {
		kind           string
		create, start  int
		delete, status string
	}{
		{"prestart", 1, 1, "does not exist", ""},
		{"createRuntime", 1, 1, "does not exist", ""},
		{"createContainer", 1, 1, "does not exist", ""},
		{"startContainer", 0, 1, "", "stopped"},
		{"poststart", 0, 1, "", "stopped"},
		{"poststop", 0, 0, "", "stopped"},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			r := newRuntime(t)
			after := filepath.Join(r.Dir, "after")
			b := r.NewBundle(harness.Args("sleep", "0.01"), func(s *specs.Spec) {
				if tt.kind == "poststart" {
					s.Process.Args[1] = "1000"
				}
				s.Hooks = &specs.Hooks{}
				bad := hook("echo out; echo words >&2; exit 3")
				bad.Env, bad.Args[0] = nil, "sh"
				*kindOf(s.Hooks, tt.kind) = []specs.Hook{{Path: "/bin/true"}, bad, hook("touch " + filepath.Join(r.Dir, "late"))}
				s.Hooks.Poststop = append(s.Hooks.Poststop, hook("cat > "+after))
			})
			id := r.NewID()
			pidFile := filepath.Join(r.Dir, "pid")
			cmd := r.Command("create", "--bundle", b.Dir, "--pid-file", pidFile, id)
			stderr := r.ErrorFile(cmd)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			status := r.Wait(cmd)
			all := stderr()
			if status != tt.create {
				t.Errorf("create: status %d, want %d: %s", status, tt.create, all)
			}
			if res := r.Run("start", id); res.Status != tt.start {
				t.Errorf("start: status %d, want %d: %s", res.Status, tt.start, res.Stderr)
			} else {
				all += res.Stderr
			}
			if status == 0 {
				harness.Reap(t, harness.ReadPid(t, pidFile))
				if got := r.Must("state", id); !strings.Contains(got, `"status": "`+tt.status+`"`) {
					t.Errorf("state: got %s, want %s", got, tt.status)
				}
			}
			res := r.Run("delete", id)
			if all += res.Stderr; !strings.Contains(res.Stderr, tt.delete) || (res.Status == 0) != (tt.delete == "") {
				t.Errorf("delete: status %d, %q", res.Status, res.Stderr)
			}
			// Newlines are spaces or quoted, as the logger has them.
			all = strings.Join(strings.Fields(strings.ReplaceAll(all, `\n`, " ")), " ")
			if want := fmt.Sprintf("error running %s hook #1: exit status 3, stdout: out , stderr: words", tt.kind); !strings.Contains(all, want) {
				t.Errorf("errors: got %q, want %s", all, want)
			}
			var got specs.State
			if err := json.Unmarshal([]byte(lines(t, after)[0]), &got); err != nil || got.ID != id || got.Status != "stopped" {
				t.Errorf("poststop behind it: %+v, %v", got, err)
			}
			if _, err := os.Stat(filepath.Join(r.Dir, "late")); (err == nil) != (tt.kind == "poststop") {
				t.Errorf("the hook behind it was run: %v", err == nil)
			}
		})
	}
}

// What a hook mounts too late for the guest is not missing without a word.
func TestHookMountsLate(t *testing.T) {
	r := newRuntime(t)
	b := r.NewBundle(harness.Args("true"))
	b.Change(t, func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{hook("mkdir -p late && mount -n -t tmpfs late late")}}
	})
	res := r.Run("run", "--bundle", b.Dir, r.NewID())
	if want := "hooks.createContainer: " + b.Rootfs + "/late was mounted"; res.Status != 1 || !strings.Contains(res.Stderr, want) {
		t.Errorf("status %d, %q, want %s", res.Status, res.Stderr, want)
	}
}

// A hook that hangs ends with the create that runs it, be it interrupted, or taken
// back by delete --force; or when its time is over, in the guest as on the host.
func TestHookHangs(t *testing.T) {
	hangs := func(kind string, timeout *int) (*harness.Runtime, *harness.Bundle, func()) {
		r := newRuntime(t)
		running := filepath.Join(r.Dir, "running")
		if kind == "startContainer" {
			running = "/tmp/running"
		}
		b := r.NewBundle(harness.Args("true"), func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{}
			h := hook("echo >" + running + "; exec sleep 1000")
			h.Timeout, h.Args[0] = timeout, "sh"
			*kindOf(s.Hooks, kind) = []specs.Hook{h}
		})
		return r, b, func() {
			harness.Within(t, harness.Limit, "the hook runs", func() bool { _, err := os.Stat(running); return err == nil })
		}
	}
	for _, kind := range []string{"prestart", "createContainer"} {
		t.Run("interrupted "+kind, func(t *testing.T) {
			r, b, await := hangs(kind, nil)
			r.In(t)
			cmd := r.Command("create", "--bundle", b.Dir, r.NewID())
			stderr := r.ErrorFile(cmd)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			await()
			cmd.Process.Signal(unix.SIGTERM) //nolint:errcheck // Wait tells
			if status := r.Wait(cmd); status == 0 || !strings.Contains(stderr(), "interrupted by SIGTERM") {
				t.Errorf("status %d, %q", status, stderr())
			}
		})
		t.Run("deleted "+kind, func(t *testing.T) {
			r, b, await := hangs(kind, nil)
			r.In(t)
			id := r.NewID()
			cmd := r.Command("create", "--bundle", b.Dir, id)
			stderr := r.ErrorFile(cmd)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			await()
			if res := r.Run("delete", "--force", id); res.Status != 0 {
				t.Errorf("delete --force: %s", res.Stderr)
			}
			if status := r.Wait(cmd); status == 0 {
				t.Errorf("create: status 0, %q", stderr())
			}
		})
	}
	one := 1
	for _, kind := range []string{"createRuntime", "startContainer", "poststart"} {
		t.Run("timeout of "+kind, func(t *testing.T) {
			r, b, _ := hangs(kind, &one)
			r.In(t)
			res := r.Run("run", "--bundle", b.Dir, r.NewID())
			if want := "error running " + kind + " hook #0: hook ran past specified timeout of 1.0s"; res.Status != 1 || !strings.Contains(res.Stderr, want) {
				t.Errorf("status %d, %q, want %s", res.Status, res.Stderr, want)
			}
		})
	}
}
