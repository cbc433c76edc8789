package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"runv/agent/api"
	"runv/libvm/guest"
	"runv/libvm/kvm"
	"runv/libvm/vm"
)

// overQEMU is the name of runv with QEMU, where our own VMM is what is measured.
const overQEMU = "runv-qemu"

// Goals of our own VMM.
const (
	goalOverQEMU = 0.6 // of `runv run true` to itself with QEMU on KVM
	goalBareKVM  = 1.0 // … to the bare boot of the kernel in QEMU on KVM
	goalBeyond   = 12  // MB of the host beyond the guest's RAM
	goalSetUp    = 10  // ms of CPU from the monitor's exec to its first KVM_RUN
)

// measureKVM compares our own VMM with QEMU, both on KVM.
func (b *bench) measureKVM(ctx context.Context) error {
	own, other, err := b.backends(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, part := range []struct {
		name string
		do   func(ctx context.Context, own, other runtime) error
	}{
		{"run true", b.kvmRun},
		{"phases", func(ctx context.Context, own, other runtime) error { return b.phasesOf(ctx, own, other) }},
		{"boot", b.kvmBoot},
		{"set-up", b.kvmSetUp},
		{"memory", b.kvmMemory},
		{"streams", b.kvmStreams},
		{"file system", b.kvmFiles},
	} {
		if ctx.Err() != nil {
			break
		}
		if err := part.do(ctx, own, other); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", part.name, err))
		}
	}
	return errors.Join(errs...)
}

// backends returns runv with our own VMM and with QEMU, both on KVM.
func (b *bench) backends(ctx context.Context) (own, other runtime, err error) {
	if err := kvm.Probe(ctx); err != nil {
		return own, other, fmt.Errorf("%w (try: make bench-kvm)", err)
	}
	own = b.runv
	own.env = append(own.env, "RUNV_BACKEND=kvm")
	other = b.newRuntime(overQEMU, b.runv.path)
	other.env = append(other.env, "RUNV_BACKEND=qemu")
	return own, other, nil
}

// kvmRun compares `run true` with QEMU's, and with the bare boot.
func (b *bench) kvmRun(ctx context.Context, own, other runtime) error {
	bare, err := b.bareBoot(ctx, other)
	if err != nil {
		return err
	}
	dir, err := b.bundle(ctx, "true", succeeds)
	if err != nil {
		return err
	}
	all, err := b.interleave(ctx, "run true", b.n, runs(own, dir), runs(other, dir), bare)
	if err != nil {
		return err
	}
	b.table.compare("run-true", "ms", all, "", map[string]float64{overQEMU: goalOverQEMU, bareQEMU: goalBareKVM})
	return nil
}

// kvmBoot splits the time to the agent's call, and times calls to it.
func (b *bench) kvmBoot(ctx context.Context, _, _ runtime) (err error) {
	backend, err := kvm.New()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	other, release, err := b.qemuBackend()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	all, err := b.interleave(ctx, "boot to the agent", b.n,
		variant{ours, func(ctx context.Context) ([]reading, error) { return b.bootOnce(ctx, backend) }},
		variant{overQEMU, func(ctx context.Context) ([]reading, error) { return b.bootOnce(ctx, other) }})
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.variant == ours {
			unit := "ms"
			if s.name == roundTrip {
				unit = "us"
			}
			b.table.compare("boot:"+s.name, unit, all, s.name, nil)
		}
	}
	return nil
}

// calls to the agent that make a reading of roundTrip, its median.
const calls = 200

const roundTrip = "call"

// bootOnce boots a guest and times some calls.
func (b *bench) bootOnce(ctx context.Context, backend vm.Backend) (_ []reading, err error) {
	ctx, cancel := context.WithTimeout(ctx, guestTime)
	defer cancel()
	begin := time.Now()
	g, err := b.boot(ctx, backend)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	var took series
	for range calls {
		begin := time.Now()
		if _, err := g.guest.Agent().Stats(ctx, &api.StatsRequest{}); err != nil {
			return nil, guest.Error(err)
		}
		took.values = append(took.values, float64(time.Since(begin))/float64(time.Microsecond))
	}
	readings := []reading{{"all", ms(g.hello.Sub(begin))}, {roundTrip, took.median()}}
	if m, ok := g.vm.(*kvm.Machine); ok {
		readings = append(bootPhases(m.Timing(), g.hello, g.agent.BootNanos), readings[1])
	}
	return readings, nil
}

// bootPhases splits the time from KVM_CREATE_VM to the agent's call. The guest's
// clock begins in the kernel's start: what comes before is in the last phase.
func bootPhases(t kvm.Timing, hello time.Time, bootNanos int64) []reading {
	kernel := time.Duration(bootNanos)
	return []reading{
		{"vm-and-devices", ms(t.Devices.Sub(t.Begin))},
		{"load-kernel", ms(t.Loaded.Sub(t.Devices))},
		{"vcpus", ms(t.Run.Sub(t.Loaded))},
		{"kernel-by-its-clock", ms(kernel)},
		{"early-kernel-and-agent", ms(hello.Sub(t.Run) - kernel)},
		{"all", ms(hello.Sub(t.Begin))},
	}
}

// kvmSetUp tells the CPU time of a start, beside that of runv doing nothing. If
// the latter is known of real hardware, so is what the former would be there.
func (b *bench) kvmSetUp(ctx context.Context, own, _ runtime) error {
	dir, err := b.bundle(ctx, "set-up", succeeds)
	if err != nil {
		return err
	}
	const nothing = "runv--version"
	all, err := b.interleave(ctx, "CPU time of the set-up", b.n,
		variant{ours, func(ctx context.Context) ([]reading, error) {
			cmd := own.command(ctx, "--debug", "run", "--bundle", dir, "bench-set-up")
			log, err := cmd.CombinedOutput()
			if err != nil {
				return nil, fmt.Errorf("runv run: %w: %s", err, log)
			}
			return startCPU(log)
		}},
		variant{nothing, func(ctx context.Context) ([]reading, error) {
			return cpuOf(exec.CommandContext(ctx, own.path, "--version"))
		}})
	if err != nil {
		return err
	}
	b.table.compare("set-up-cpu", "ms", all, "", nil)
	setUp, _ := find(all, ours, "")
	version, _ := find(all, nothing, "")
	if b.native > 0 && version.median() > 0 {
		b.table.value("set-up-cpu", "natively-by-ratio", "ms", setUp.median()/version.median()*b.native, goalSetUp)
		b.table.value("set-up-cpu", "native-runv--version", "ms", b.native, 0)
	}
	return nil
}

var startLine = regexp.MustCompile(`msg="set up the virtual machine" cpu_us=(\d+)`)

// startCPU reads what the monitor says of the CPU time up to its first KVM_RUN.
func startCPU(log []byte) ([]reading, error) {
	m := startLine.FindSubmatch(log)
	if m == nil {
		return nil, fmt.Errorf("the monitor does not log the CPU time of its start: %s", log)
	}
	us, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("CPU time of the start: %w", err)
	}
	return []reading{{value: ms(time.Duration(us) * time.Microsecond)}}, nil
}

// cpuOf runs a command and returns its CPU time, in ms.
func cpuOf(cmd *exec.Cmd) ([]reading, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", cmd, err, &stderr)
	}
	s := cmd.ProcessState
	return []reading{{value: ms(s.UserTime() + s.SystemTime())}}, nil
}
