package kvm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"runv/libvm/kvm/acpi"
	"runv/libvm/kvm/boot"
	"runv/libvm/vm"
)

// The probe guest counts down, two instructions a round, once to get there and
// once on the clock. A processor does it in some 10 µs, an emulated KVM host in
// less than a millisecond; a KVM that interprets instructions (1.7 million a
// second were seen) takes 12 ms, and could not boot a kernel in reasonable time.
const (
	probeRounds = 10_000
	probeLimit  = 4 * time.Millisecond  // of CPU time
	probeTries  = 3                     // of which the fastest counts
	probeStuck  = time.Second           // of CPU time, after which the guest will never end
	probeWall   = 20 * time.Second      // in all, on a host that has no time for us
	probeLook   = 20 * time.Millisecond // how often it is looked at
	probeMemory = 2 * vm.MiB
)

// ErrSlow says that KVM works, but not at the speed of the processor.
var ErrSlow = errors.New("kvm executes guests far slower than the processor (it is emulated)")

// Probe executes a tiny guest and returns nil if that runs at the speed of the
// processor; ErrSlow, ErrUnusable, or how the guest failed, if not. It takes
// about 1 ms where all is well.
func Probe(ctx context.Context) error {
	b, err := New()
	if err != nil {
		return err
	}
	defer b.Close() //nolint:errcheck // only a descriptor
	return b.Probe(ctx)
}

// Probe is the function of that name, of a backend that is there.
func (b *Backend) Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeWall)
	defer cancel()
	var best time.Duration
	for i := range probeTries {
		took, err := b.probe(ctx)
		if err != nil {
			return fmt.Errorf("probe: %w", err)
		}
		if took < probeLimit {
			return nil
		}
		if i == 0 || took < best {
			best = took
		}
	}
	return fmt.Errorf("%w: %d instructions took %v", ErrSlow, 2*probeRounds, best.Round(time.Millisecond))
}

// stamps notes the CPU time of the vCPU's thread at each write to the console.
type stamps struct {
	at [2]int64 // ns
	n  int
}

func (s *stamps) Write(p []byte) (int, error) {
	if s.n < len(s.at) {
		s.at[s.n] = threadTime(0)
		s.n++
	}
	return len(p), nil
}

// probeCode counts down, prints, counts down, prints, and powers off.
func probeCode() []byte {
	var c []byte
	for range 2 {
		c = binary.LittleEndian.AppendUint32(append(c, 0xb9), probeRounds) // mov ecx, rounds
		c = append(c, 0xff, 0xc9, 0x75, 0xfc)                              // dec ecx; jnz back
		c = append(c, 0x66, 0xba, portSerial&0xff, portSerial>>8, 0xee)    // mov dx, port; out dx, al
	}
	c = append(c, 0x66, 0xba, portSleepCtl&0xff, portSleepCtl>>8, 0xb0, acpi.SleepOff, 0xee)
	return append(c, 0xf4) // hlt
}

// probe runs the guest once and returns the CPU time that its count took.
func (b *Backend) probe(ctx context.Context) (time.Duration, error) {
	m, err := b.newMachine(probeMemory, probeMemory)
	if err != nil {
		return 0, err
	}
	var clock stamps
	m.ports.serial.out = &clock
	s, err := boot.Raw(m.ram.mem, probeCode())
	if err == nil {
		err = m.addVCPUs(b, 1)
	}
	if err == nil {
		err = m.vcpus[0].enter(s)
	}
	if err != nil {
		m.free() //nolint:errcheck // the first error counts
		return 0, err
	}
	m.start()
	if err := m.awaitProbe(ctx); err != nil {
		m.Close() //nolint:errcheck // it has no error to tell
		return 0, err
	}
	if err := m.Err(); !errors.Is(err, ErrPowerOff) || clock.n != len(clock.at) {
		return 0, fmt.Errorf("after %d of %d steps: %w", clock.n, len(clock.at), err)
	}
	return time.Duration(clock.at[1] - clock.at[0]), nil
}

// awaitProbe waits for the guest's end, which it may never come to.
func (m *Machine) awaitProbe(ctx context.Context) error {
	tick := time.NewTicker(probeLook)
	defer tick.Stop()
	for {
		select {
		case <-m.Done():
			return nil
		case <-ctx.Done():
			return fmt.Errorf("the guest did not end: %w", ctx.Err())
		case <-tick.C:
			if used, err := m.CPUTime(); err == nil && time.Duration(used) > probeStuck {
				return fmt.Errorf("%w: the guest did not end within %v of CPU time", ErrSlow, time.Duration(used).Round(time.Millisecond))
			}
		}
	}
}
