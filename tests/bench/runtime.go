package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// runtime is an OCI runtime with a state directory of our own.
type runtime struct {
	name, path string
	root       string   // --root
	prefix     []string // the command that runs it, if it does not run as it is
	env        []string
}

func (b *bench) newRuntime(name, path string) runtime {
	r := runtime{name: name, path: path, root: filepath.Join(b.dir, "root-"+name), env: os.Environ()}
	if name == ours || name == overQEMU {
		r.env = append(r.env, "RUNV_KERNEL="+b.kernel)
	}
	if name == crun && b.unified != "" {
		r.prefix = []string{"nsenter", "--mount=" + b.unified}
	}
	return r
}

// others returns those of the named runtimes that can run a bundle on this host.
func (b *bench) others(ctx context.Context, bundle string, names ...string) []runtime {
	var all []runtime
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			b.progress("%s is not installed: not compared with it (try: apt-get install %s)", name, name)
			continue
		}
		r := b.newRuntime(name, path)
		if _, err := r.output(ctx, "run", "--bundle", bundle, "bench-try"); err != nil {
			b.progress("not compared with %s: %v", name, err)
			continue
		}
		all = append(all, r)
	}
	return all
}

// runtimeOf returns the runtime whose state directory root is.
func (b *bench) runtimeOf(root string) runtime {
	name := strings.TrimPrefix(filepath.Base(root), "root-")
	if name == ours || name == overQEMU {
		return b.newRuntime(name, b.runv.path)
	}
	return b.newRuntime(name, name)
}

func (r runtime) command(ctx context.Context, args ...string) *exec.Cmd {
	argv := slices.Concat(r.prefix, []string{r.path, "--root", r.root}, args)
	if r.name == crun {
		// Its containers are in no cgroup, as some hosts let nobody make one.
		argv = slices.Insert(argv, len(argv)-len(args), "--cgroup-manager=disabled")
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = r.env
	// A runtime that is asked to end ends its container.
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// output runs a command to its end and returns what it wrote to stdout.
func (r runtime) output(ctx context.Context, args ...string) (string, error) {
	cmd := r.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w: %s%s", r.name, strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String(), nil
}

// timed returns how long a command takes, in ms.
func (r runtime) timed(ctx context.Context, args ...string) ([]reading, error) {
	begin := time.Now()
	_, err := r.output(ctx, args...)
	return []reading{{value: ms(time.Since(begin))}}, err
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// running is a container that goes on by itself.
type running struct {
	runtime runtime
	id      string
	pid     int // a child of ours, as the subreaper
}

// detached starts a container that goes on by itself. Its id is name and the
// runtime's: the control group that is named after it is one for all runtimes.
func (r runtime) detached(ctx context.Context, bundle, name string) (running, error) {
	c := running{runtime: r, id: name + "-" + r.name}
	pidFile := bundle + "/" + r.name + ".pid"
	cmd := r.command(ctx, "run", "--detach", "--bundle", bundle, "--pid-file", pidFile, c.id)
	stderr, err := os.Create(bundle + "/" + r.name + ".stderr") // not a pipe, which the container would hold
	if err != nil {
		return c, err
	}
	defer stderr.Close() //nolint:errcheck // for an error message
	cmd.Stderr = stderr
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(stderr.Name()) // what is known is told
		return c, fmt.Errorf("%s run --detach: %w: %s", r.name, err, text)
	}
	data, err := os.ReadFile(pidFile)
	if err != nil {
		return c, err
	}
	c.pid, err = strconv.Atoi(strings.TrimSpace(string(data)))
	return c, err
}

// endTime bounds the end of a container; the measurement's context may have
// ended before.
const endTime = 30 * time.Second

// end ends the container and removes it.
func (c running) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	err := c.runtime.delete(ctx, c.id)
	for {
		if _, werr := unix.Wait4(c.pid, nil, 0, nil); !errors.Is(werr, unix.EINTR) {
			return err
		}
	}
}

// delete ends a container, if it runs, and removes it.
func (r runtime) delete(ctx context.Context, id string) error {
	_, err := r.output(ctx, "delete", "--force", id)
	return err
}

// ociVersion is one that every runtime here accepts.
const ociVersion = "1.0.2"

// bundle makes a bundle from what `runv spec` prints, for any runtime, and
// returns its directory.
func (b *bench) bundle(ctx context.Context, name string, change func(*specs.Spec)) (string, error) {
	dir, err := os.MkdirTemp(b.dir, "bundle-"+name+"-")
	if err != nil {
		return "", err
	}
	if out, err := exec.CommandContext(ctx, b.script, dir+"/rootfs").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", b.script, err, out)
	}
	if _, err := b.runv.output(ctx, "spec", "--bundle", dir); err != nil {
		return "", err
	}
	config := dir + "/config.json"
	data, err := os.ReadFile(config)
	if err != nil {
		return "", err
	}
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return "", fmt.Errorf("%s: %w", config, err)
	}
	spec.Version = ociVersion
	spec.Process.Terminal = false
	spec.Process.Rlimits = nil // a host may not let runc raise them
	change(&spec)
	if data, err = json.MarshalIndent(&spec, "", "\t"); err != nil {
		return "", err
	}
	return dir, os.WriteFile(config, data, 0o644)
}
