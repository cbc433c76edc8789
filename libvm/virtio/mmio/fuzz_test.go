package mmio

import (
	"context"
	"encoding/binary"
	"sync"
	"testing"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue/queuetest"
	"runv/libvm/virtio/rng"
	"runv/libvm/virtio/vsock"
)

// An access of the fuzzer: 8 bytes.
//
//	0  vCPU (low bit), read or write (bit 1), width 1, 2, 4 or 8 (bits 2 and 3)
//	1  register, in units of 4 bytes, from 0 to 0x13c
//	2  byte offset in it (2 bits)
//	4  value, 4 bytes little-endian
const accessBytes = 8

func access(vcpu, write int, off uint64, v uint32) []byte {
	b := []byte{byte(vcpu | write<<1 | 2<<2), byte(off / 4), byte(off % 4), 0}
	return binary.LittleEndian.AppendUint32(b, v)
}

// play does the accesses in data, on two vCPUs at once.
func (g *guest) play(data []byte) {
	var wg sync.WaitGroup
	for vcpu := range byte(2) {
		wg.Go(func() {
			for d := data; len(d) >= accessBytes; d = d[accessBytes:] {
				if d[0]&1 != vcpu {
					continue
				}
				off := uint64(d[1]%0x50)*4 + uint64(d[2]&3)
				p := make([]byte, 1<<(d[0]>>2&3))
				if d[0]&2 == 0 {
					g.Read(off, p)
					continue
				}
				copy(p, d[4:accessBytes])
				g.Write(off, p)
			}
		})
	}
	wg.Wait()
}

// bringUp is a good driver's start, as the fuzzer's accesses.
func bringUp(queues int) (b []byte) {
	w := func(off uint64, v uint32) { b = append(b, access(0, 1, off, v)...) }
	w(regStatus, 0)
	w(regStatus, statusAcknowledge|statusDriver)
	w(regDriverFeaturesSel, 1)
	w(regDriverFeatures, 1<<(virtio.FVersion1-32))
	w(regStatus, statusAcknowledge|statusDriver|statusFeaturesOK)
	for i := range queues {
		w(regQueueSel, uint32(i))
		w(regQueueNum, 16)
		w(regQueueDescLow, uint32(i)<<16)
		w(regQueueDriverLow, uint32(i)<<16+0x1000)
		w(regQueueDeviceLow, uint32(i)<<16+0x2000)
		w(regQueueReady, 1)
	}
	w(regStatus, statusAcknowledge|statusDriver|statusFeaturesOK|statusDriverOK)
	for i := range queues {
		w(regQueueNotify, uint32(i))
	}
	return b
}

// FuzzRegisters plays two vCPUs that access registers as they like, on memory
// that is full of descriptors. Whatever they did, a driver that follows resets
// the device and works with it.
func FuzzRegisters(f *testing.F) {
	f.Add(bringUp(1), false, byte(0))
	f.Add(bringUp(3), true, byte(0))
	up := bringUp(2)
	f.Add(append(up, access(1, 1, regStatus, 0)...), true, byte(1))
	f.Add(append(up, up...), true, byte(0xff))
	f.Add(append(up, access(1, 1, regQueueReady, 0)...), false, byte(3))
	f.Add(append(up, access(1, 1, regConfig, 0xffffffff)...), false, byte(2))
	// One memory for all runs: to clear 16 MiB takes longer than a run. What is
	// left behind the part that is filled is no matter: a driver lays its queues out anew.
	ram := make([]byte, ramBytes)
	f.Fuzz(func(t *testing.T, data []byte, socket bool, fill byte) {
		const most = 256 // accesses: the last thing that is worth the fuzzer's time
		data = data[:min(len(data), most*accessBytes)]
		if socket {
			d := vsock.New(3)
			g := newGuestIn(t, d, ram)
			g.fill(fill)
			g.play(data)
			g.checkVsock(d)
			return
		}
		g := newGuestIn(t, rng.New(), ram)
		g.fill(fill)
		g.play(data)
		g.random(g.startUp(allFeatures)[0])
		g.stop()
	})
}

// stop stops the device. What the guest did wrong is no matter.
func (g *guest) stop() {
	g.Close() //nolint:errcheck // see above
	if len(g.notify) != 0 {
		g.t.Errorf("eventfds still connected: %v", g.notify)
	}
}

// fill writes descriptors and rings of a kind all over the first 256 KiB.
func (g *guest) fill(v byte) {
	for i := range g.ram[:256<<10] {
		g.ram[i] = v * byte(i%5)
	}
}

// checkVsock sets the device up and has the host dial the guest, which sees the
// request.
func (g *guest) checkVsock(d *vsock.Device) {
	g.t.Helper()
	rx := g.startUp(allFeatures)[0]
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	rx.WantNext()
	rx.Offer(queuetest.Buffer{Data: make([]byte, 4096), Write: true})
	g.kick(0)
	wg.Go(func() {
		if c, err := d.Dial(ctx, 22); err == nil {
			c.Close() //nolint:errcheck // nobody answers; it is not expected
		}
	})
	if u := rx.Take(g.t, limit); u.Len != 44 || u.Data[0][30] != 1 {
		g.t.Fatalf("packet of %d bytes, op %d, want VIRTIO_VSOCK_OP_REQUEST (1)", u.Len, u.Data[0][30])
	}
}
