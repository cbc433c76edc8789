package hostfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"golang.org/x/sys/unix"
)

// destination opens path inside the view, never outside of it, and makes it, a
// directory or an empty file, if it is missing.
func (v *View) destination(path string, file bool) (*os.File, error) {
	f, err := pathrs.OpenatInRoot(v.root, path)
	if err == nil || !errors.Is(err, unix.ENOENT) {
		return f, err
	}
	// Symbolic links of the image may end in something that does not exist
	// (resolv.conf does, in some); what they point to is what has to be made.
	resolved, err := securejoin.SecureJoin(v.rootfs, path)
	if err != nil {
		return nil, fmt.Errorf("mount point %q: %w", path, err)
	}
	if path, err = filepath.Rel(v.rootfs, resolved); err != nil {
		return nil, fmt.Errorf("mount point %q: %w", path, err)
	}
	if !file {
		d, err := pathrs.MkdirAllHandle(v.root, path, 0o755)
		if err != nil {
			return nil, fmt.Errorf("make mount point %q: %w", path, err)
		}
		d.Close() //nolint:errcheck // opened again below, through what is mounted on it
		return pathrs.OpenatInRoot(v.root, path)
	}
	dir, err := pathrs.MkdirAllHandle(v.root, filepath.Dir(path), 0o755)
	if err != nil {
		return nil, fmt.Errorf("make mount point %q: %w", path, err)
	}
	defer dir.Close() //nolint:errcheck // a directory
	fd, err := unix.Openat(int(dir.Fd()), filepath.Base(path), unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, &os.PathError{Op: "make mount point", Path: path, Err: err}
	}
	unix.Close(fd) //nolint:errcheck // empty
	return pathrs.OpenatInRoot(v.root, path)
}
