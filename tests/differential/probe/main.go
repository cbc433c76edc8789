// The probe is what a container of the differential test runs: it prints, as JSON,
// what it sees of its surroundings. Its arguments are further things to look at:
//
//	stat=PATH   type, mode, owner, device numbers, target
//	read=PATH   the beginning of a file, or why it cannot be read
//	write=PATH  whether a file can be opened for writing, or created
//	list=PATH   the names in a directory
//	call=NAME   what a system call answers, in a process of its own
//	exit=N      ends with that status
//	die=N       ends by that signal
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// facts are what was seen, by name.
type facts map[string]string

func main() {
	if len(os.Args) == 3 && os.Args[1] == callFlag {
		os.Exit(call(os.Args[2]))
	}
	f := facts{}
	f.process()
	f.files()
	f.mounts()
	f.devices()
	f.system()
	f.groups()
	end := func() {}
	for _, a := range os.Args[1:] {
		kind, value, _ := strings.Cut(a, "=")
		switch kind {
		case "stat":
			f["stat "+value] = describe(value)
		case "read":
			f["read "+value] = read(value)
		case "write":
			f["write "+value] = write(value)
		case "list":
			f["list "+value] = list(value)
		case "call":
			f["call "+value] = inChild(value)
		case "exit", "die":
			n, err := strconv.Atoi(value)
			if err != nil {
				f["argument "+a] = err.Error()
				continue
			}
			end = ending(kind, n)
		default:
			f["argument "+a] = "unknown"
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(f); err != nil {
		fmt.Fprintln(os.Stderr, err) //nolint:errcheck // the status tells
		os.Exit(125)
	}
	end()
}

// ending is how the probe ends if it was told.
func ending(kind string, n int) func() {
	if kind == "exit" {
		return func() { os.Exit(n) }
	}
	return func() {
		_ = unix.Kill(os.Getpid(), unix.Signal(n)) // of PID 1 the kernel may drop it
		os.Exit(124)
	}
}

// reason is an error without its path.
func reason(err error) string {
	for _, e := range []error{unix.EACCES, unix.EPERM, unix.ENOENT, unix.EROFS, unix.ENXIO, unix.ENODEV, unix.EIO, unix.EISDIR, unix.ENOTDIR, unix.EINVAL} {
		if strings.HasSuffix(err.Error(), e.Error()) {
			return e.Error()
		}
	}
	return err.Error()
}

// maxRead bounds what is told of a file.
const maxRead = 512 // bytes

func read(path string) string {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO has no writer
	if err != nil {
		return reason(err)
	}
	defer file.Close() //nolint:errcheck // only read
	b := make([]byte, maxRead)
	n, err := file.Read(b)
	if n == 0 && err != nil && err.Error() != "EOF" {
		return reason(err)
	}
	return strconv.Quote(string(b[:n]))
}

func write(path string) string {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|unix.O_NONBLOCK, 0o666)
	if err != nil {
		return reason(err)
	}
	return "writable" + closing(file)
}

func closing(file *os.File) string {
	if err := file.Close(); err != nil {
		return ", " + reason(err)
	}
	return ""
}

func list(path string) string {
	entries, err := os.ReadDir(path)
	if err != nil {
		return reason(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// describe is a file as stat(2) has it.
func describe(path string) string {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return reason(err)
	}
	kinds := map[uint32]string{
		unix.S_IFREG: "file", unix.S_IFDIR: "directory", unix.S_IFLNK: "symlink", unix.S_IFCHR: "char",
		unix.S_IFBLK: "block", unix.S_IFIFO: "fifo", unix.S_IFSOCK: "socket",
	}
	s := fmt.Sprintf("%s %#o %d:%d", kinds[st.Mode&unix.S_IFMT], st.Mode&0o7777, st.Uid, st.Gid)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR, unix.S_IFBLK:
		s += fmt.Sprintf(" %d,%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			target = reason(err)
		}
		s += " -> " + target
	}
	return s
}

// devices describes what is in /dev, but not what comes and goes there.
func (f facts) devices() {
	_ = filepath.WalkDir("/dev", func(path string, d os.DirEntry, err error) error {
		if err != nil || path == "/dev" {
			return nil
		}
		if d.IsDir() && (path == "/dev/pts" || path == "/dev/shm" || path == "/dev/mqueue") {
			f["dev "+path] = describe(path)
			return filepath.SkipDir
		}
		f["dev "+path] = describe(path)
		return nil
	})
}
