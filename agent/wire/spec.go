package wire

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Spec is the part of a config.json that the guest acts on. Of its fields only
// those that the guest knows are coded: see the functions below.
type Spec struct {
	Process    *specs.Process
	Root       *specs.Root
	Hostname   string
	Domainname string
	Mounts     []specs.Mount
	Linux      Linux

	StartContainer []specs.Hook
	// HookState is the container's state as hooks get it, with a NUL byte, which
	// no JSON has, in place of the pid. Empty if there are no hooks.
	HookState []byte
}

// Linux is the part of a config.json's linux.
type Linux struct {
	UIDMappings       []specs.LinuxIDMapping
	GIDMappings       []specs.LinuxIDMapping
	Sysctl            map[string]string
	Resources         *specs.LinuxResources
	CgroupsPath       string
	Namespaces        []specs.LinuxNamespace
	Devices           []specs.LinuxDevice
	RootfsPropagation string
	MaskedPaths       []string
	ReadonlyPaths     []string
	Personality       *specs.LinuxPersonality
	TimeOffsets       map[string]string // clock: "SECONDS NANOSECONDS"
}

// MarshalSpec writes the guest's part of a config.json, and the state for its
// hooks.
func MarshalSpec(s *specs.Spec, hookState []byte) []byte {
	g := Spec{Process: s.Process, Root: s.Root, Hostname: s.Hostname, Domainname: s.Domainname, Mounts: s.Mounts}
	if l := s.Linux; l != nil {
		g.Linux = Linux{
			UIDMappings: l.UIDMappings, GIDMappings: l.GIDMappings, Sysctl: l.Sysctl, Resources: l.Resources,
			CgroupsPath: l.CgroupsPath, Namespaces: l.Namespaces, Devices: l.Devices,
			RootfsPropagation: l.RootfsPropagation, MaskedPaths: l.MaskedPaths, ReadonlyPaths: l.ReadonlyPaths,
			Personality: l.Personality,
		}
	}
	if l := s.Linux; l != nil && len(l.TimeOffsets) > 0 {
		g.Linux.TimeOffsets = map[string]string{}
		for clock, o := range l.TimeOffsets {
			g.Linux.TimeOffsets[clock] = fmt.Sprint(o.Secs, " ", o.Nanosecs)
		}
	}
	if h := s.Hooks; h != nil && len(h.StartContainer) > 0 {
		g.StartContainer, g.HookState = h.StartContainer, hookState
	}
	return Marshal(&g, spec)
}

// UnmarshalSpec reads what MarshalSpec wrote.
func UnmarshalSpec(b []byte) (*Spec, error) {
	var s Spec
	if err := Unmarshal(b, &s, spec); err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	return &s, nil
}

// MarshalProcess writes the guest's part of a process.
func MarshalProcess(p *specs.Process) []byte { return Marshal(p, Process) }

// UnmarshalProcess reads what MarshalProcess wrote.
func UnmarshalProcess(b []byte) (*specs.Process, error) {
	var p specs.Process
	if err := Unmarshal(b, &p, Process); err != nil {
		return nil, fmt.Errorf("process: %w", err)
	}
	return &p, nil
}

// MarshalResources writes the guest's part of limits.
func MarshalResources(r *specs.LinuxResources) []byte { return Marshal(r, resources) }

// UnmarshalResources reads what MarshalResources wrote.
func UnmarshalResources(b []byte) (*specs.LinuxResources, error) {
	var r specs.LinuxResources
	if err := Unmarshal(b, &r, resources); err != nil {
		return nil, fmt.Errorf("resources: %w", err)
	}
	return &r, nil
}

func spec(c *Coder, s *Spec) {
	Pointer(c, &s.Process, Process)
	Pointer(c, &s.Root, func(c *Coder, r *specs.Root) { c.Bool(&r.Readonly) })
	String(c, &s.Hostname)
	String(c, &s.Domainname)
	Slice(c, &s.Mounts, Mount)
	l := &s.Linux
	Slice(c, &l.UIDMappings, idMapping)
	Slice(c, &l.GIDMappings, idMapping)
	c.Map(&l.Sysctl)
	Pointer(c, &l.Resources, resources)
	String(c, &l.CgroupsPath)
	Slice(c, &l.Namespaces, func(c *Coder, n *specs.LinuxNamespace) {
		String(c, &n.Type)
		String(c, &n.Path)
	})
	Slice(c, &l.Devices, Device)
	String(c, &l.RootfsPropagation)
	c.Strings(&l.MaskedPaths)
	c.Strings(&l.ReadonlyPaths)
	Pointer(c, &l.Personality, func(c *Coder, p *specs.LinuxPersonality) {
		String(c, &p.Domain)
		Slice(c, &p.Flags, String)
	})
	c.Map(&l.TimeOffsets)
	Slice(c, &s.StartContainer, Hook)
	c.Bytes(&s.HookState)
}

// Hook codes a hook.
func Hook(c *Coder, h *specs.Hook) {
	String(c, &h.Path)
	c.Strings(&h.Args)
	c.Strings(&h.Env)
	Pointer(c, &h.Timeout, Number)
}

// Process codes a process.
func Process(c *Coder, p *specs.Process) {
	c.Bool(&p.Terminal)
	Pointer(c, &p.ConsoleSize, func(c *Coder, b *specs.Box) {
		Number(c, &b.Height)
		Number(c, &b.Width)
	})
	Number(c, &p.User.UID)
	Number(c, &p.User.GID)
	Pointer(c, &p.User.Umask, Number)
	Slice(c, &p.User.AdditionalGids, Number)
	c.Strings(&p.Args)
	c.Strings(&p.Env)
	String(c, &p.Cwd)
	Pointer(c, &p.Capabilities, func(c *Coder, s *specs.LinuxCapabilities) {
		c.Strings(&s.Bounding)
		c.Strings(&s.Effective)
		c.Strings(&s.Inheritable)
		c.Strings(&s.Permitted)
		c.Strings(&s.Ambient)
	})
	Slice(c, &p.Rlimits, func(c *Coder, l *specs.POSIXRlimit) {
		String(c, &l.Type)
		Number(c, &l.Hard)
		Number(c, &l.Soft)
	})
	c.Bool(&p.NoNewPrivileges)
	Pointer(c, &p.OOMScoreAdj, Number)
	Pointer(c, &p.Scheduler, scheduler)
	Pointer(c, &p.IOPriority, func(c *Coder, p *specs.LinuxIOPriority) {
		String(c, &p.Class)
		Number(c, &p.Priority)
	})
	Pointer(c, &p.ExecCPUAffinity, func(c *Coder, a *specs.CPUAffinity) {
		String(c, &a.Initial)
		String(c, &a.Final)
	})
}

func scheduler(c *Coder, s *specs.Scheduler) {
	String(c, &s.Policy)
	Number(c, &s.Nice)
	Number(c, &s.Priority)
	Slice(c, &s.Flags, String)
	Number(c, &s.Runtime)
	Number(c, &s.Deadline)
	Number(c, &s.Period)
}

// Mount codes a mount.
func Mount(c *Coder, m *specs.Mount) {
	String(c, &m.Destination)
	String(c, &m.Type)
	String(c, &m.Source)
	c.Strings(&m.Options)
	Slice(c, &m.UIDMappings, idMapping)
	Slice(c, &m.GIDMappings, idMapping)
}

func idMapping(c *Coder, m *specs.LinuxIDMapping) {
	Number(c, &m.ContainerID)
	Number(c, &m.HostID)
	Number(c, &m.Size)
}

// Device codes a device node.
func Device(c *Coder, d *specs.LinuxDevice) {
	String(c, &d.Path)
	String(c, &d.Type)
	Number(c, &d.Major)
	Number(c, &d.Minor)
	Pointer(c, &d.FileMode, Number)
	Pointer(c, &d.UID, Number)
	Pointer(c, &d.GID, Number)
}

// resources codes the limits that are files of a cgroup: devices come compiled,
// the rest is the host's business.
func resources(c *Coder, r *specs.LinuxResources) {
	Pointer(c, &r.Memory, func(c *Coder, m *specs.LinuxMemory) {
		Pointer(c, &m.Limit, Number)
		Pointer(c, &m.Reservation, Number)
		Pointer(c, &m.Swap, Number)
	})
	Pointer(c, &r.CPU, func(c *Coder, p *specs.LinuxCPU) {
		Pointer(c, &p.Shares, Number)
		Pointer(c, &p.Quota, Number)
		Pointer(c, &p.Burst, Number)
		Pointer(c, &p.Period, Number)
		Pointer(c, &p.RealtimeRuntime, Number)
		Pointer(c, &p.RealtimePeriod, Number)
		String(c, &p.Cpus)
		String(c, &p.Mems)
		Pointer(c, &p.Idle, Number)
	})
	Pointer(c, &r.Pids, func(c *Coder, p *specs.LinuxPids) { Pointer(c, &p.Limit, Number) })
	Pointer(c, &r.BlockIO, func(c *Coder, b *specs.LinuxBlockIO) { Pointer(c, &b.Weight, Number) })
	Slice(c, &r.HugepageLimits, func(c *Coder, l *specs.LinuxHugepageLimit) {
		String(c, &l.Pagesize)
		Number(c, &l.Limit)
	})
	c.Map(&r.Unified)
}
