package tsc

import (
	"errors"
	"testing"
)

func TestMeasure(t *testing.T) {
	a, err := Measure()
	if err != nil {
		t.Fatal(err)
	}
	b, err := Measure()
	if err != nil {
		t.Fatal(err)
	}
	// 1,000 ppm is far more than a guest's clock may be wrong, and room enough
	// for a busy machine.
	if d := float64(a)/float64(b) - 1; d > 1e-3 || d < -1e-3 {
		t.Errorf("got %d and %d kHz", a, b)
	}
}

func TestKHz(t *testing.T) {
	tests := []struct {
		name     string
		from, to Sample
		want     uint32
		err      bool
	}{
		{"2.6 GHz", Sample{100, 0}, Sample{100 + 26_000_000, 10_000_000}, 2_600_000, false},
		{"rounded", Sample{0, 0}, Sample{25_961_177, 10_000_000}, 2_596_118, false},
		{"backwards", Sample{100, 0}, Sample{50, 10_000_000}, 0, true},
		{"stopped", Sample{100, 0}, Sample{100, 10_000_000}, 0, true},
		{"emulated away", Sample{0, 0}, Sample{10_000_000, 1_000_000_000}, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := KHz(tt.from, tt.to)
			if got != tt.want || (err != nil) != tt.err {
				t.Errorf("got %d, %v, want %d", got, err, tt.want)
			}
		})
	}
	if _, err := KHz(Sample{0, 0}, Sample{1000, 1000}); !errors.Is(err, ErrTooSoon) {
		t.Errorf("1 µs apart: got %v, want ErrTooSoon", err)
	}
}
