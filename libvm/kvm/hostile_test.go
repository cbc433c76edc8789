package kvm

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"runv/libvm/virtio"
	"runv/libvm/virtio/fs"
	"runv/libvm/virtio/fs/passthrough"
	"runv/libvm/virtio/mmio"
	"runv/libvm/virtio/rng"
	"runv/libvm/virtio/vsock"
	"runv/libvm/vm"
)

// hostilePayload writes what a random number generator says to where it says,
// in all registers of the first four device pages, and reads them, steps times.
// Some values are small, so that queues come to be used.
func hostilePayload(seed, steps uint32) []byte {
	le := binary.LittleEndian
	c := setRBX(uint64(mmioStart))
	c = le.AppendUint32(append(c, 0xb8), seed)  // mov eax, seed
	c = le.AppendUint32(append(c, 0xb9), steps) // mov ecx, steps
	begin := len(c)
	c = le.AppendUint32(append(c, 0x69, 0xc0), 1664525)     // imul eax, eax, …
	c = append(c, 0x05)                                     // add eax, …
	c = le.AppendUint32(c, 1013904223)                      //
	c = append(c, 0x89, 0xc2, 0xc1, 0xea, 0x08)             // mov edx, eax; shr edx, 8
	c = le.AppendUint32(append(c, 0x81, 0xe2), 0x31fc)      // and edx, …: four pages, registers and configuration
	c = append(c, 0x89, 0xc6, 0xc1, 0xee, 0x1c)             // mov esi, eax; shr esi, 28
	c = append(c, 0xa8, 0x40, 0x0f, 0x44, 0xf0)             // test al, 64; cmovz esi, eax
	c = append(c, 0x89, 0x34, 0x13)                         // mov [rbx+rdx], esi
	c = append(c, 0x8b, 0x3c, 0x13)                         // mov edi, [rbx+rdx]
	c = append(c, 0xff, 0xc9)                               // dec ecx
	c = append(c, 0x0f, 0x85)                               // jnz begin
	c = le.AppendUint32(c, uint32(int32(begin-(len(c)+4)))) //
	return append(c, powerOff...)
}

// realDevices are those of every container, vsock first, with nothing behind them.
func realDevices(t testing.TB) []virtio.Device {
	t.Helper()
	files, err := passthrough.NewServer(passthrough.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { files.Close() })
	tree, err := fs.New("runv", 1, files)
	if err != nil {
		t.Fatal(err)
	}
	return []virtio.Device{vsock.New(vm.GuestCID), tree, rng.New()}
}

// TestHostileGuest has a guest misuse the registers of real devices. The VM goes
// on, and ends as the guest wants.
func TestHostileGuest(t *testing.T) {
	for seed := range uint32(3) {
		m := run(t, 1, hostilePayload(seed, 3000), realDevices(t)...)
		if err := ended(t, m); !errors.Is(err, ErrPowerOff) {
			t.Errorf("seed %d: got %v, want ErrPowerOff", seed, err)
		}
	}
}

// hostileRing is a virtqueue of 16 descriptors with loops, lengths and addresses
// that no driver would write, and some that it would: descriptor table, available
// ring at 0x100, used ring at 0x200.
func hostileRing(r *rand.Rand, base uint64) []byte {
	pick := func(from ...uint64) uint64 { return from[r.IntN(len(from))] }
	b := make([]byte, 0, 0x1000)
	for range 16 {
		addr := pick(base+0x400, base, 0, uint64(holeStart), uint64(mmioStart), 48*vm.MiB-4, 1<<63, 1<<64-1)
		length := pick(0, 1, 8, 16, 44, 64, 0xc00, 1<<32-1)
		b = binary.LittleEndian.AppendUint64(b, addr)
		b = binary.LittleEndian.AppendUint32(b, uint32(length))
		b = binary.LittleEndian.AppendUint16(b, uint16(r.IntN(8)))  // next, write, indirect
		b = binary.LittleEndian.AppendUint16(b, uint16(r.IntN(18))) // two of them outside
	}
	b = binary.LittleEndian.AppendUint16(b, uint16(r.IntN(2)))                 // flags
	b = binary.LittleEndian.AppendUint16(b, uint16(pick(1, 8, 16, 17, 1<<15))) // idx
	for range 17 {
		b = binary.LittleEndian.AppendUint16(b, uint16(r.IntN(18)))
	}
	b = b[:0x400]
	for len(b) < cap(b) { // what requests are made of
		b = append(b, byte(pick(0, 0, 1, 3, 16, 26, 40, 255)))
	}
	return b
}

// ringPayload brings each device up with hostile rings, notifies it, and resets
// it, rounds times; the rings are behind the code.
func ringPayload(r *rand.Rand, queues []int, rounds int) []byte {
	const status, room = 0x70, 0x40000
	var c, rings []byte
	for range rounds {
		for dev, n := range queues {
			at := uint64(mmioStart) + uint64(dev)*mmioSize
			set := func(reg uint64, v uint32) { c = append(c, write32(at+reg, v)...) }
			set(status, 0)
			set(status, 3)
			set(0x24, 0) // DriverFeaturesSel
			set(0x20, uint32(r.IntN(4))<<28)
			set(0x24, 1)
			set(0x20, 1) // VERSION_1
			set(status, 11)
			for q := range n {
				ring := payloadBase + room + uint64(len(rings))
				rings = append(rings, hostileRing(r, ring)...)
				set(0x30, uint32(q))
				set(0x38, 16)
				for i, area := range []uint64{0x80, 0x90, 0xa0} {
					set(area, uint32(ring)+uint32(i)*0x100)
					set(area+4, 0)
				}
				set(0x44, 1)
			}
			set(status, 15)
			for q := range n {
				set(0x50, uint32(q))
			}
			c = append(c, 0xb9, 0, 0x10, 0, 0, 0xff, 0xc9, 0x75, 0xfc) // mov ecx, 4096; dec ecx; jnz back
			for q := range n {
				set(0x50, uint32(q))
			}
		}
	}
	c = append(c, powerOff...)
	return append(append(c, make([]byte, room-len(c))...), rings...)
}

// TestHostileRings has a guest bring real devices up with broken virtqueues. The
// devices that notice want a reset, and the VM goes on.
func TestHostileRings(t *testing.T) {
	for seed := range uint64(4) {
		devices := realDevices(t)
		var queues []int
		for _, d := range devices {
			queues = append(queues, len(d.QueueSizes()))
		}
		m := run(t, 1, ringPayload(rand.New(rand.NewPCG(seed, 0)), queues, 12), devices...)
		if err := ended(t, m); !errors.Is(err, ErrPowerOff) {
			t.Errorf("seed %d: got %v, want ErrPowerOff", seed, err)
		}
		failed := 0
		for _, w := range m.windows {
			if tr, ok := w.(*mmio.Transport); ok && tr.Err() != nil {
				failed++
			}
		}
		if failed == 0 {
			t.Errorf("seed %d: no device noticed anything", seed)
		}
	}
}
