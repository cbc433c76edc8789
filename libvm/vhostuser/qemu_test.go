package vhostuser_test

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"runv/libvm/qemu/qemutest"
	"runv/libvm/vhostuser"
	"runv/libvm/virtio"
	"runv/libvm/virtio/rng"
)

// TestQEMU has a real guest on the real QEMU use our devices, and reset one of
// them twice.
func TestQEMU(t *testing.T) {
	m := qemutest.New(t, qemutest.Build(t, "./testdata/guest"))
	m.Append = "rng_core.default_quality=0"
	random := &vhostuser.Recorder{Device: rng.New()}
	vsock := &vhostuser.Recorder{Device: &vhostuser.Idle{Type: virtio.IDVsock, Sizes: []uint16{128, 128, 128}, Space: []byte{3, 0, 0, 0, 0, 0, 0, 0}}}
	fs := &vhostuser.Recorder{Device: &vhostuser.Idle{Type: virtio.IDFS, Sizes: []uint16{128, 128, 128}, Space: make([]byte, 40)}}
	m.Attach("vhost-user-rng", random)
	m.Attach("vhost-user-vsock-device", vsock)
	m.Attach("vhost-user-fs-device,tag=runv,queue-size=128", fs)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out := m.Run(ctx)
	t.Log(out)
	reads := regexp.MustCompile(`guest: virtio_rng\.\d+ ([0-9a-f]{32})`).FindAllStringSubmatch(out, -1)
	if len(reads) != 3 || reads[0][1] == reads[1][1] || !strings.Contains(out, "guest: done") {
		t.Errorf("the guest read %d times, want 3 times", len(reads))
	}
	if got := random.Started(); len(got) != 3 {
		t.Errorf("rng was started %q, want three times", got)
	}
	if got := vsock.Started(); len(got) != 1 || got[0] != "[1024][1024]-" {
		t.Errorf("vsock was started %q, want once, with rx and tx", got)
	}
	if got := fs.Started(); len(got) != 1 || got[0] != "[1024][1024]-" {
		t.Errorf("fs was started %q, want once, with hiprio and one request queue", got)
	}
}
