// Package setup is what runs in the first process of a container before it
// becomes the workload: the agent starts its own executable again under the name
// Argv0, already in the namespaces that the config wants, and that process makes
// the container's file system view, gives up what the config does not grant, and
// execs. The order is that of runc's standard init.
package setup

import (
	"fmt"
	"os"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"runv/agent/task"
	"runv/agent/wire"
)

// Argv0 is the name under which the agent's executable calls Main.
const Argv0 = "runv-init"

// Descriptors of the first process behind those that are the workload's, of which
// there are three, or as many as its one argument says.
//
//	workload + 0   a SOCK_SEQPACKET socket to the agent; see sync.go
//	workload + 1   a memfd with the Config; see code
type files struct{ workload int }

func (f files) sync() int   { return f.workload }
func (f files) config() int { return f.workload + 1 }

// streams is how many files a workload has that was given no others.
const streams = 3

// Argv is the argument list for a workload with a number of files.
func Argv(workload int) []string {
	if workload == streams {
		return []string{Argv0}
	}
	return []string{Argv0, strconv.Itoa(workload)}
}

func filesOf(argv []string) (files, error) {
	if len(argv) < 2 {
		return files{streams}, nil
	}
	n, err := strconv.Atoi(argv[1])
	if err != nil || n < streams {
		return files{}, fmt.Errorf("%s is not a command for users", Argv0)
	}
	return files{n}, nil
}

// Config is what the first process needs to know. Paths are the guest's.
type Config struct {
	Process *specs.Process
	// Base is an empty directory to mount the root file system on, Rootfs
	// the directory that is it.
	Base, Rootfs string
	Readonly     bool
	// Propagation is linux.rootfsPropagation.
	Propagation string
	Mounts      []Mount
	Devices     []specs.LinuxDevice
	// DeviceDir has the nodes of the devices by their names Node(i), to be
	// bound: in a user namespace nobody may make nodes. Empty without one.
	DeviceDir            string
	CgroupNS             bool   // to be unshared
	CgroupDir            string // the container's cgroup, as the guest sees it
	Hostname, Domainname string
	Sysctl               map[string]string
	MaskedPaths          []string
	ReadonlyPaths        []string
	Rows, Cols           uint16 // of the terminal, characters; 0: unknown

	Hooks     []specs.Hook // to be run before the workload
	HookState []byte       // wire.Spec.HookState

	Seccomp      []byte
	SeccompFlags uint32
	Personality  int
	KeyringName  string
	LastCap      uint

	files files // of the first process; not coded
}

// Mount is a mount of the config.
type Mount struct {
	specs.Mount
	// Tree is the source of a bind in the guest.
	Tree string
}

func (c *Config) settings() *task.Settings {
	return &task.Settings{
		Process: c.Process, Seccomp: c.Seccomp, SeccompFlags: c.SeccompFlags,
		Personality: c.Personality, KeyringName: c.KeyringName, LastCap: c.LastCap,
	}
}

// File returns a memfd that holds the config, for the first process.
func (c *Config) File() (*os.File, error) {
	fd, err := unix.MemfdCreate("config", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "config")
	if _, err := f.WriteAt(wire.Marshal(c, code), 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// code codes a config.
func code(k *wire.Coder, c *Config) {
	wire.Pointer(k, &c.Process, wire.Process)
	wire.String(k, &c.Base)
	wire.String(k, &c.Rootfs)
	k.Bool(&c.Readonly)
	wire.String(k, &c.Propagation)
	wire.Slice(k, &c.Mounts, func(k *wire.Coder, m *Mount) {
		wire.Mount(k, &m.Mount)
		wire.String(k, &m.Tree)
	})
	wire.Slice(k, &c.Devices, wire.Device)
	wire.String(k, &c.DeviceDir)
	k.Bool(&c.CgroupNS)
	wire.String(k, &c.CgroupDir)
	wire.String(k, &c.Hostname)
	wire.String(k, &c.Domainname)
	k.Map(&c.Sysctl)
	k.Strings(&c.MaskedPaths)
	k.Strings(&c.ReadonlyPaths)
	wire.Number(k, &c.Rows)
	wire.Number(k, &c.Cols)
	wire.Slice(k, &c.Hooks, wire.Hook)
	k.Bytes(&c.HookState)
	k.Bytes(&c.Seccomp)
	wire.Number(k, &c.SeccompFlags)
	wire.Number(k, &c.Personality)
	wire.String(k, &c.KeyringName)
	wire.Number(k, &c.LastCap)
}

func readConfig(fds files) (*Config, error) {
	f := os.NewFile(uintptr(fds.config()), "config")
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the init's config: %w", err)
	}
	b := make([]byte, fi.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("read the init's config: %w", err)
	}
	c := Config{files: fds}
	if err := wire.Unmarshal(b, &c, code); err != nil {
		return nil, fmt.Errorf("read the init's config: %w", err)
	}
	if c.Process == nil || len(c.Process.Args) == 0 {
		return nil, fmt.Errorf("the init's config has no process")
	}
	return &c, nil
}
