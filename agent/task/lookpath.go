package task

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNotFound is the cause when no directory of PATH has the executable.
var ErrNotFound = errors.New("executable file not found in $PATH")

// LookError has the words of runc, which engines match: they are those of
// os/exec.Error.
type LookError struct {
	Name string
	Err  error
}

func (e *LookError) Error() string {
	return "exec: \"" + e.Name + "\": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *LookError) Unwrap() error { return e.Err }

// LookPath finds an executable as os/exec.LookPath does, with the PATH of env
// instead of the process's own, and as seen by the calling thread: its root, its
// working directory and its file system ids.
func LookPath(file string, env []string) (string, error) {
	if strings.Contains(file, "/") {
		if err := executable(file); err != nil {
			return "", &LookError{file, err}
		}
		return file, nil
	}
	for _, dir := range filepath.SplitList(Getenv(env, "PATH")) {
		if dir == "" {
			dir = "." // as a shell does
		}
		path := filepath.Join(dir, file)
		if executable(path) == nil {
			if !filepath.IsAbs(path) {
				return "", &LookError{file, errors.New("cannot run executable found relative to current directory")}
			}
			return path, nil
		}
	}
	return "", &LookError{file, ErrNotFound}
}

func executable(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	if fi.IsDir() {
		return unix.EISDIR
	}
	// Not unix.Eaccess: it asks for the ids of the process and not for those
	// of the thread where the kernel lacks faccessat2, and we need 5.8 anyway.
	err = unix.Faccessat2(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		if fi.Mode()&0o111 == 0 {
			return fs.ErrPermission
		}
		return nil
	}
	return err
}

// ThreadGroups sets the supplementary groups of the calling thread alone, as
// opposed to package syscall's Setgroups.
func ThreadGroups(gids []int) error {
	list := make([]uint32, len(gids)+1)
	for i, g := range gids {
		list[i] = uint32(g)
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(gids)), uintptr(unsafe.Pointer(&list[0])), 0)
	if errno != 0 {
		return os.NewSyscallError("setgroups", errno)
	}
	return nil
}
