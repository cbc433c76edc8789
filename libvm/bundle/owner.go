package bundle

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// procName is the name in /proc/<pid>/ns of the namespace of a type.
func procName(t specs.LinuxNamespaceType) string {
	switch t {
	case specs.MountNamespace:
		return "mnt"
	case specs.NetworkNamespace:
		return "net"
	}
	return string(t)
}

// checkOwner refuses a namespace in which another container of ours is, as far as
// the host is concerned: its workload is in another guest.
func (b *Bundle) checkOwner(n specs.LinuxNamespace) error {
	var want unix.Stat_t
	if err := unix.Stat(n.Path, &want); err != nil {
		return fmt.Errorf("linux.namespaces: %s: %w", n.Type, &os.PathError{Op: "stat", Path: n.Path, Err: err})
	}
	var own unix.Stat_t
	if err := unix.Stat("/proc/self/ns/"+procName(n.Type), &own); err == nil && own.Dev == want.Dev && own.Ino == want.Ino {
		return nil // of the host: containers without one of their own are there, too
	}
	all, err := filepath.Glob("/proc/[0-9]*/ns/" + procName(n.Type))
	if err != nil {
		return err
	}
	for _, path := range all {
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || st.Dev != want.Dev || st.Ino != want.Ino {
			continue // it may have ended
		}
		if id, ok := containerOf(filepath.Dir(filepath.Dir(path))); ok {
			return fmt.Errorf("linux.namespaces: %s: %s is that of another container, %s, which has a virtual machine of its own: sharing namespaces with it is not supported", n.Type, n.Path, id)
		}
	}
	return nil
}

// containerOf returns the id of the container whose monitor or stand-in the process
// of a directory of /proc is.
func containerOf(proc string) (id string, ok bool) {
	b, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	if err != nil {
		return "", false
	}
	args := strings.Split(string(bytes.TrimRight(b, "\x00")), "\x00")
	if len(args) != 3 || args[0] != "runv" || args[1] != "monitor" && args[1] != "stand-in" {
		return "", false
	}
	return args[2], true
}
