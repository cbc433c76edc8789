// Package sysctl knows the names of kernel parameters, and which of them belong
// to a container. The host refuses the others before it starts a VM; the agent
// refuses them again, and sets the rest.
package sysctl

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// ofIPC belong to the IPC namespace, besides all of fs.mqueue.
var ofIPC = [...]string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
	"kernel.shmmni", "kernel.shm_rmid_forced",
}

// Check says whether a container may set a kernel parameter: only one that
// belongs to a namespace of its own, as in runc. All of net does: the guest's
// network is the container's. The words are runc's.
func Check(key string, newIPC, newUTS bool) error {
	name := Name(key)
	switch {
	case slices.Contains(ofIPC[:], name) || strings.HasPrefix(name, "fs.mqueue."):
		if newIPC {
			return nil
		}
		return fmt.Errorf("sysctl %q is not allowed in the hosts ipc namespace", name)
	case name == "kernel.domainname":
		if newUTS {
			return nil
		}
		return fmt.Errorf("sysctl %q is not allowed as it conflicts with the OCI %q field", name, "domainname")
	case name == "kernel.hostname":
		return fmt.Errorf("sysctl %q is not allowed as it conflicts with the OCI %q field", name, "hostname")
	case strings.HasPrefix(name, "net."):
		return nil
	}
	return fmt.Errorf("sysctl %q is not in a separate kernel namespace", name)
}

// Name gives a key with dots between its parts. Where the first separator is a
// slash, dots and slashes have changed places (sysctl.d(5)):
// net/ipv4/conf/eth0.1/forwarding is net.ipv4.conf.eth0/1.forwarding.
func Name(key string) string {
	i := strings.IndexAny(key, "./")
	if i < 0 || key[i] == '.' {
		return key
	}
	return swapped(key)
}

// File returns the file of a kernel parameter. An error is a key that does not
// lead to one below /proc/sys part by part.
func File(key string) (string, error) {
	file := swapped(Name(key))
	if !filepath.IsLocal(file) || filepath.Clean(file) != file || strings.ContainsRune(file, 0) {
		return "", fmt.Errorf("sysctl %q is malformed", key)
	}
	return "/proc/sys/" + file, nil
}

// swapped has dots for slashes, and slashes for dots.
func swapped(name string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, name)
}
