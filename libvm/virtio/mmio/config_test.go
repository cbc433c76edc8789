package mmio

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"runv/libvm/virtio/console"
)

func TestConfig(t *testing.T) {
	c := console.New(console.Options{Out: io.Discard})
	t.Cleanup(c.Close)
	g := newGuest(t, c)
	generation := g.get(regConfigGeneration)
	if g.get(regConfigGeneration) != generation {
		t.Error("generation changed by itself")
	}
	c.Resize(80, 24)
	if got := g.get(regInterruptStatus); got != 0 {
		t.Errorf("interrupt before DRIVER_OK: status %#x", got)
	}
	if g.get(regConfigGeneration) == generation {
		t.Error("generation stays though the configuration has changed")
	}
	g.startUp(allFeatures | 1)
	c.Resize(132, 43)
	if got := g.get(regInterruptStatus); got != intConfigChange {
		t.Errorf("interrupt status: got %#x, want %#x", got, intConfigChange)
	}
	for _, r := range []struct {
		off  uint64
		want []byte
	}{
		{0, []byte{132}}, {1, []byte{0}}, {0, []byte{132, 0}}, {2, []byte{43, 0}},
		{0, []byte{132, 0, 43, 0}}, {0, []byte{132, 0, 43, 0, 0, 0, 0, 0}}, {3, []byte{0, 0, 0, 0}},
	} {
		p := bytes.Repeat([]byte{0xff}, len(r.want))
		if g.Read(regConfig+r.off, p); !bytes.Equal(p, r.want) {
			t.Errorf("configuration at %d: got %x, want %x", r.off, p, r.want)
		}
	}
	before := c.Config()
	g.set(regConfig, 0xffffffff) // not a ConfigWriter
	if got := c.Config(); !bytes.Equal(got, before) {
		t.Errorf("configuration after a write: got %x, want %x", got, before)
	}
}

// writable has a configuration space of 4 bytes, of which 0xff is refused.
type writable struct {
	stuck
	mu     sync.Mutex
	config [4]byte
}

func (w *writable) Config() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Clone(w.config[:])
}

func (w *writable) WriteConfig(off uint32, p []byte) error {
	if bytes.Contains(p, []byte{0xff}) {
		return errors.New("0xff")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	copy(w.config[off:], p)
	return nil
}

func TestWriteConfig(t *testing.T) {
	w := &writable{stuck: stuck{let: make(chan struct{})}}
	close(w.let)
	g := newGuest(t, w)
	g.Write(regConfig, []byte{9})
	if got := w.Config(); got[0] != 0 {
		t.Error("written before there was a driver")
	}
	g.startUp(allFeatures)
	g.Write(regConfig+1, []byte{1, 2})
	g.Write(regConfig+3, []byte{3, 4}) // behind the end
	g.Write(regConfig+4, []byte{5})
	if got, want := w.Config(), []byte{0, 1, 2, 0}; !bytes.Equal(got, want) {
		t.Errorf("configuration: got %x, want %x", got, want)
	}
	g.Write(regConfig, []byte{0xff})
	g.waitStatus(statusNeedsReset)
	if err := g.Err(); err == nil || !strings.Contains(err.Error(), "0xff") {
		t.Errorf("error: got %v", err)
	}
}
