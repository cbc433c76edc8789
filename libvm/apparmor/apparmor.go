// Package apparmor puts processes of the host under profiles of AppArmor
// (Documentation/admin-guide/LSM/apparmor.rst of Linux; proc_pid_attr(5)).
package apparmor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"runv/libvm/mountfd"
	"runv/libvm/thread"
)

// unconfined is the profile that is none.
const unconfined = "unconfined"

// ErrDisabled says that the host has no AppArmor. The words of errors are runc's.
var ErrDisabled = errors.New("unable to apply apparmor profile: apparmor: config provided but apparmor not supported")

// Enabled says whether the host enforces AppArmor.
func Enabled() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(b), "Y")
}

// None says whether a name in a config stands for no profile: the caller's stays.
func None(profile string) bool { return profile == "" || profile == unconfined }

// Check says why a process could not get a profile: it may not be loaded.
func Check(profile string) error {
	if None(profile) {
		return nil
	}
	if !Enabled() {
		return fmt.Errorf("%w (remove the profile %q from the config)", ErrDisabled, profile)
	}
	return thread.Own(func() error { return OnExec(profile) })
}

// OnExec has what the calling thread, or a child of it, executes next get a
// profile. The thread should be one that ends (thread.Own).
func OnExec(profile string) error {
	if None(profile) {
		return nil
	}
	if err := os.WriteFile("/proc/thread-self/attr/apparmor/exec", []byte("exec "+profile), 0); err != nil {
		return failed(err)
	}
	return nil
}

// Change puts a process under a profile; nil changes nothing.
type Change struct {
	profile string
	proc    *os.File // in which threads have the numbers that the process knows
}

const attribute = "attr/apparmor/current"

// NewChange prepares a change of the calling process, and tries it with one thread:
// what the others could not do under the profile they would fail at without a word. It
// needs CAP_SYS_ADMIN.
func NewChange(profile string) (*Change, error) {
	if None(profile) {
		return nil, nil
	}
	fd, err := mountfd.New("proc", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, failed(fmt.Errorf("mount proc: %w", err))
	}
	c := &Change{profile: profile, proc: os.NewFile(uintptr(fd), "proc")}
	own, err := readBelow(fd, "thread-self/"+attribute)
	if err == nil {
		// A label is a name and, in parentheses, a mode.
		if name, _, _ := strings.Cut(own, " ("); strings.TrimSpace(name) == profile {
			c.Close()
			return nil, nil // the caller's own
		}
		err = c.try()
	}
	if err != nil {
		c.Close()
		return nil, failed(err)
	}
	return c, nil
}

// try has a thread that ends then do what a Go program, and one that others talk to,
// cannot do without.
func (c *Change) try() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	defer unix.Close(pair[0]) //nolint:errcheck // nothing of worth was written
	defer unix.Close(pair[1]) //nolint:errcheck // nothing of worth was written
	return thread.Own(func() error {
		fd, err := unix.Openat(int(c.proc.Fd()), "thread-self/"+attribute, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: attribute, Err: err}
		}
		defer unix.Close(fd) //nolint:errcheck // written to at once
		if _, err := unix.Write(fd, []byte("changeprofile "+c.profile)); err != nil {
			return &os.PathError{Op: "write", Path: attribute, Err: err}
		}
		if err := unix.Tgkill(unix.Getpid(), unix.Gettid(), 0); err != nil {
			return fmt.Errorf("%s forbids what a VM needs, signals to itself (signal peer=%[1]s): %w", c.profile, err)
		}
		if _, err := unix.Write(pair[0], []byte{0}); err != nil {
			return fmt.Errorf("%s forbids what a VM needs, local sockets (network unix): %w", c.profile, err)
		}
		return nil
	})
}

// Apply makes the change for all threads, for good.
func (c *Change) Apply() error {
	if c == nil {
		return nil
	}
	if err := thread.WriteEach(c.proc, attribute, "changeprofile "+c.profile); err != nil {
		return failed(err)
	}
	return nil
}

// Close frees what the change needs; it stays.
func (c *Change) Close() {
	if c != nil {
		c.proc.Close() //nolint:errcheck // unmounts it
	}
}

// readBelow reads a small file below a directory.
func readBelow(dir int, path string) (string, error) {
	fd, err := unix.Openat(dir, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() //nolint:errcheck // only read from
	b, err := io.ReadAll(f)
	return string(b), err
}

func failed(err error) error {
	return fmt.Errorf("unable to apply apparmor profile: apparmor failed to apply profile: %w", err)
}
