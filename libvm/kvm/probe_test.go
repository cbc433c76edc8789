package kvm

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
)

// TestProbe holds the probe against what the processor says of itself.
func TestProbe(t *testing.T) {
	backend(t)
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Fatal(err)
	}
	hardware := strings.Contains(string(b), " vmx") || strings.Contains(string(b), " svm")
	err = Probe(context.Background())
	switch {
	case hardware && err != nil:
		t.Errorf("a processor with virtualization: got %v", err)
	case !hardware && !errors.Is(err, ErrSlow):
		t.Errorf("a processor without virtualization: got %v, want ErrSlow", err)
	}
	t.Logf("Probe: %v", err)
}

func TestProbeEndsWithItsContext(t *testing.T) {
	backend(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Probe(ctx); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, ErrSlow) {
		t.Errorf("got %v", err)
	}
}
