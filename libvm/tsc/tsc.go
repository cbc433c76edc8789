// Package tsc measures the frequency of the host's time stamp counter.
//
// Under TCG a guest's TSC is the host's, and nothing tells the guest its
// frequency. A guest that measures it against the emulated PIT fails when the
// host is busy: then it runs on a clock of 4 ms steps, or hangs at boot. So the
// VMM measures, and says tsc_early_khz= on the kernel's command line.
package tsc

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// rdtsc reads the counter. It is in tsc_amd64.s.
func rdtsc() uint64

// Sample is a reading of the counter and of the clock at the same moment.
type Sample struct {
	tsc   uint64
	nanos int64 // CLOCK_MONOTONIC_RAW, ns
}

// minInterval is the shortest time between two samples that gives a frequency:
// a sample is taken within about 0.2 µs, which is 20 ppm of it.
const minInterval = 10 * time.Millisecond

// tries bounds the readings for a sample, of which the tightest counts: the
// others were interrupted.
const tries = 8

// ErrTooSoon says that samples are too close together to compare.
var ErrTooSoon = errors.New("samples of the TSC are too close together")

// Now takes a sample.
func Now() (Sample, error) {
	var best Sample
	width := uint64(1) << 63
	for range tries {
		var ts unix.Timespec
		before := rdtsc()
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_RAW, &ts); err != nil {
			return Sample{}, fmt.Errorf("read the clock: %w", err)
		}
		if w := rdtsc() - before; w < width {
			width = w
			best = Sample{tsc: before + w/2, nanos: ts.Nano()}
		}
	}
	return best, nil
}

// KHz returns the frequency of the counter between two samples, in kHz. They
// must be 10 ms apart or more; other work is better than sleep to fill the time.
func KHz(from, to Sample) (uint32, error) {
	ns := to.nanos - from.nanos
	if ns < int64(minInterval) {
		return 0, ErrTooSoon
	}
	khz := float64(to.tsc-from.tsc) * 1e6 / float64(ns)
	if to.tsc <= from.tsc || khz < 1e5 || khz > 1e7 {
		return 0, fmt.Errorf("the TSC runs at %.0f kHz: it is not usable as a clock", khz)
	}
	return uint32(khz + 0.5), nil
}

// Measure takes two samples 10 ms apart and returns the frequency in kHz.
func Measure() (uint32, error) {
	from, err := Now()
	if err != nil {
		return 0, err
	}
	time.Sleep(minInterval)
	to, err := Now()
	if err != nil {
		return 0, err
	}
	return KHz(from, to)
}
