package setup

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks bounds the symlinks followed for one path, as the kernel does.
const maxLinks = 40

// resolve returns the path, relative to root, that name means to a process whose
// root directory is root: symlinks lead to other places inside of it. What does
// not exist is taken as it is written, so that it can be made: the target of a
// dangling symlink, too.
func resolve(root, name string) (string, error) {
	cur, rest, links := "", name, 0
	for rest != "" {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		switch part {
		case "", ".":
			continue
		case "..":
			if cur = path.Dir(cur); cur == "." {
				cur = ""
			}
			continue
		}
		next := path.Join(cur, part)
		fi, err := os.Lstat(filepath.Join(root, next))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			return "", err
		}
		if err != nil || fi.Mode()&fs.ModeSymlink == 0 {
			cur = next
			continue
		}
		if links++; links > maxLinks {
			return "", &os.PathError{Op: "resolve", Path: name, Err: unix.ELOOP}
		}
		target, err := os.Readlink(filepath.Join(root, next))
		if err != nil {
			return "", err
		}
		if path.IsAbs(target) {
			cur = ""
		}
		rest = target + "/" + rest
	}
	return cur, nil
}

// rootDir is the root file system while the process is still outside of it.
type rootDir struct {
	path string
	fd   int
}

func openRoot(path string) (*rootDir, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &rootDir{path, fd}, nil
}

// renew goes on in what was mounted over the root.
func (r *rootDir) renew() error {
	top, err := openRoot(r.path)
	if err != nil {
		return err
	}
	r.close()
	*r = *top
	return nil
}

func (r *rootDir) close() { unix.Close(r.fd) }

// dir opens a directory of the root, and makes what is missing of it. It walks
// the resolved name one component at a time and follows no symlink, so that
// whoever changes the tree meanwhile leads it nowhere else.
func (r *rootDir) dir(name string) (int, error) {
	rel, err := resolve(r.path, name)
	if err != nil {
		return -1, err
	}
	return r.walk(rel)
}

func (r *rootDir) walk(rel string) (int, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(r.fd, ".", flags, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: r.path, Err: err}
	}
	for part := range strings.SplitSeq(rel, "/") {
		if part == "" {
			continue
		}
		next, err := unix.Openat(fd, part, flags, 0)
		if errors.Is(err, unix.ENOENT) {
			if err = unix.Mkdirat(fd, part, 0o755); err == nil || errors.Is(err, unix.EEXIST) {
				next, err = unix.Openat(fd, part, flags, 0)
			}
		}
		unix.Close(fd)
		if err != nil {
			return -1, &os.PathError{Op: "mkdir", Path: "/" + rel, Err: err}
		}
		fd = next
	}
	return fd, nil
}

// file opens, as O_PATH, a file of the root that is no directory, and makes an
// empty one and the directories above it if it is missing.
func (r *rootDir) file(name string) (int, error) {
	dir, base, err := r.parent(name)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, base, flags, 0)
	if errors.Is(err, unix.ENOENT) {
		var nfd int
		nfd, err = unix.Openat(dir, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o755)
		if err == nil {
			unix.Close(nfd)
			fd, err = unix.Openat(dir, base, flags, 0)
		}
	}
	if err != nil {
		return -1, &os.PathError{Op: "create", Path: name, Err: err}
	}
	return fd, nil
}

// parent opens the directory of a name, and makes it if it is missing. The last
// component is resolved too, and returned.
func (r *rootDir) parent(name string) (int, string, error) {
	rel, err := resolve(r.path, name)
	if err != nil {
		return -1, "", err
	}
	if rel == "" {
		return -1, "", &os.PathError{Op: "open", Path: name, Err: unix.EISDIR}
	}
	dir, base := path.Split(rel)
	fd, err := r.walk(strings.TrimSuffix(dir, "/"))
	return fd, base, err
}

// fdPath is a name for an open descriptor, for calls that take only names.
func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
