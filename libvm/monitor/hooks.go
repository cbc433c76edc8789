package monitor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/libvm/hooks"
	"runv/libvm/state"
	"runv/libvm/thread"
)

// runHooks runs the createContainer hooks: their programs are the host's, their
// namespaces those of the monitor, in which the view is mounted at the rootfs. Like
// runc we tell them the pid in their own pid namespace.
func (m *monitor) runHooks(ctx context.Context) error {
	if m.spec.Hooks == nil || len(m.spec.Hooks.CreateContainer) == 0 {
		return nil
	}
	pid := os.Getpid()
	if p := m.launch.StandIn; p != nil && !newNamespace(&m.spec, specs.PIDNamespace) {
		pid = p.PID
	}
	s := m.public(state.Creating, pid).OCI()
	o := hooks.Options{Dir: m.launch.Rootfs, Env: slices.Concat([]string{}, m.spec.Process.Env)}
	before, err := mountsBelow(m.launch.Rootfs)
	if err != nil {
		return err
	}
	err = thread.Own(func() error {
		// The file server has taken the process's umask away.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		unix.Umask(m.umask)
		return hooks.Run(ctx, hooks.CreateContainer, m.spec.Hooks.CreateContainer, s, o)
	})
	if err != nil {
		return err
	}
	after, err := mountsBelow(m.launch.Rootfs)
	for id, path := range after {
		if _, ok := before[id]; !ok {
			return fmt.Errorf("hooks.createContainer: %s was mounted, which does not reach the guest, whose file systems are shared by then: mount it in a createRuntime hook", path)
		}
	}
	return err
}

// mountsBelow lists the mounts at and below a directory by their ids.
func mountsBelow(dir string) (map[int]string, error) {
	list, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	all := map[int]string{}
	for _, i := range list {
		all[i.ID] = i.Mountpoint
	}
	return all, nil
}

// hookState is the state for the hooks that the guest runs, in the form of
// wire.Spec.HookState: the guest knows the pid.
func (m *monitor) hookState() ([]byte, error) {
	const pid = 1
	b, err := json.Marshal(m.public(state.Created, pid).OCI())
	if err != nil {
		return nil, err
	}
	// Before it are a version, an id and a status only.
	return bytes.Replace(b, []byte(`"pid":1,`), []byte("\"pid\":\x00,"), 1), nil
}

// lateHooks are those that outlive the creation, for the state; nil if there are
// none.
func lateHooks(h *specs.Hooks) *specs.Hooks {
	if h == nil || len(h.Poststart) == 0 && len(h.Poststop) == 0 {
		return nil
	}
	return &specs.Hooks{Poststart: h.Poststart, Poststop: h.Poststop}
}
