package main

import (
	"fmt"
	"math"
	"os"
	"strconv"

	"github.com/docker/go-units"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"runv/libvm/bounded"
	"runv/libvm/bundle"
)

const resourcesUsage = `path to the file containing the resources to update or '-' to read from the standard input: JSON of the form of linux.resources in config.json, of which memory (limit, reservation, swap, checkBeforeUpdate), cpu (shares, quota, burst, period, cpus, mems, idle), pids, blockIO (weight) and unified are changed. Other options are ignored then`

func (a *app) updateCommand() *cli.Command {
	return &cli.Command{
		Name:      "update",
		Usage:     "update container resource constraints",
		ArgsUsage: "<container-id>",
		Description: `Limits change in the guest and on the host. What is not given, or 0, stays as it is. The virtual
machine keeps the memory and the number of CPUs that it was created with: a limit of memory beyond
that is refused.`,
		Flags: updateFlags(),
		Action: func(c *cli.Context) error {
			args, err := arguments(c, arity{1, 1})
			if err != nil {
				return err
			}
			if err := refuseFlags(c); err != nil {
				return err
			}
			r, err := updateResources(c)
			if err != nil {
				return err
			}
			//lint:ignore SA1019 told of because it is deprecated
			if m := r.Memory; m != nil && (m.Kernel != nil || m.KernelTCP != nil) {
				a.log.Warn("Kernel memory settings are ignored and will be removed")
			}
			return a.runtime(c).Update(c.Context, args[0], r)
		},
	}
}

func updateFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "resources", Aliases: []string{"r"}, Usage: resourcesUsage},
		&cli.IntFlag{Name: "blkio-weight", Usage: "Specifies per cgroup weight, range is from 10 to 1000"},
		&cli.StringFlag{Name: "cpu-period", Usage: "CPU CFS period to be used for hardcapping (in usecs). 0 to use system default"},
		&cli.StringFlag{Name: "cpu-quota", Usage: "CPU CFS hardcap limit (in usecs). Allowed cpu time in a given period"},
		&cli.StringFlag{Name: "cpu-burst", Usage: "CPU CFS hardcap burst limit (in usecs). Allowed accumulated cpu time additionally for burst a given period"},
		&cli.StringFlag{Name: "cpu-share", Usage: "CPU shares (relative weight vs. other containers)"},
		&cli.StringFlag{Name: "cpu-rt-period", Usage: "CPU realtime period to be used for hardcapping (in usecs)"},
		&cli.StringFlag{Name: "cpu-rt-runtime", Usage: "CPU realtime hardcap limit (in usecs)"},
		&cli.StringFlag{Name: "cpuset-cpus", Usage: "CPU(s) of the host to use"},
		&cli.StringFlag{Name: "cpuset-mems", Usage: "Memory node(s) of the host to use"},
		&cli.StringFlag{Name: "kernel-memory", Usage: "(obsoleted; do not use)", Hidden: true},
		&cli.StringFlag{Name: "kernel-memory-tcp", Usage: "(obsoleted; do not use)", Hidden: true},
		&cli.StringFlag{Name: "memory", Usage: "Memory limit (in bytes)"},
		&cli.StringFlag{Name: "cpu-idle", Usage: "set cgroup SCHED_IDLE or not, 0: default behavior, 1: SCHED_IDLE"},
		&cli.StringFlag{Name: "memory-reservation", Usage: "Memory reservation or soft_limit (in bytes)"},
		&cli.StringFlag{Name: "memory-swap", Usage: "Total memory usage (memory + swap); set '-1' to enable unlimited swap"},
		&cli.IntFlag{Name: "pids-limit", Usage: "Maximum number of pids allowed in the container"},
		&cli.StringFlag{Name: "l3-cache-schema", Usage: "The string of Intel RDT/CAT L3 cache schema"},
		&cli.StringFlag{Name: "mem-bw-schema", Usage: "The string of Intel RDT/MBA memory bandwidth schema"},
	}
}

// updateResources reads the new limits out of the flags, or the file that they
// name.
func updateResources(c *cli.Context) (*specs.LinuxResources, error) {
	if path := c.String("resources"); path != "" {
		return readResources(path)
	}
	r := &specs.LinuxResources{Memory: &specs.LinuxMemory{}, CPU: &specs.LinuxCPU{Cpus: c.String("cpuset-cpus"), Mems: c.String("cpuset-mems")}}
	if n := c.Int("blkio-weight"); n != 0 {
		if n < 0 || n > math.MaxUint16 {
			return nil, fmt.Errorf("invalid value for blkio-weight: %d", n)
		}
		w := uint16(n)
		r.BlockIO = &specs.LinuxBlockIO{Weight: &w}
	}
	if n := int64(c.Int("pids-limit")); n != 0 {
		r.Pids = &specs.LinuxPids{Limit: &n}
	}
	var err error
	number := func(flag string, parse func(string) error) {
		if text := c.String(flag); text != "" && err == nil {
			if err = parse(text); err != nil {
				err = fmt.Errorf("invalid value for %s: %w", flag, err)
			}
		}
	}
	number("cpu-idle", signed(&r.CPU.Idle))
	number("cpu-burst", unsigned(&r.CPU.Burst))
	number("cpu-period", unsigned(&r.CPU.Period))
	number("cpu-rt-period", unsigned(&r.CPU.RealtimePeriod))
	number("cpu-share", unsigned(&r.CPU.Shares))
	number("cpu-quota", signed(&r.CPU.Quota))
	number("cpu-rt-runtime", signed(&r.CPU.RealtimeRuntime))
	number("memory", size(&r.Memory.Limit))
	number("memory-swap", size(&r.Memory.Swap))
	//lint:ignore SA1019 it is told of
	number("kernel-memory", size(&r.Memory.Kernel))
	number("kernel-memory-tcp", size(&r.Memory.KernelTCP))
	number("memory-reservation", size(&r.Memory.Reservation))
	return r, err
}

func readResources(path string) (*specs.LinuxResources, error) {
	f := os.Stdin
	if path != "-" {
		var err error
		if f, err = os.Open(path); err != nil {
			return nil, err
		}
		defer f.Close()
	}
	data, err := bounded.Read(f, "resources", bundle.MaxResources)
	if err != nil {
		return nil, err
	}
	return bundle.ParseResources(data)
}

func signed(to **int64) func(string) error {
	return func(text string) error {
		n, err := strconv.ParseInt(text, 10, 64)
		*to = &n
		return err
	}
}

func unsigned(to **uint64) func(string) error {
	return func(text string) error {
		n, err := strconv.ParseUint(text, 10, 64)
		*to = &n
		return err
	}
}

// size takes bytes, also with a unit as "64m", and -1 for no limit.
func size(to **int64) func(string) error {
	return func(text string) error {
		n := int64(-1)
		var err error
		if text != "-1" {
			n, err = units.RAMInBytes(text)
		}
		*to = &n
		return err
	}
}
