package kvm

import (
	"encoding/binary"
	"errors"
	"testing"

	"runv/libvm/virtio"
	"runv/libvm/virtio/fs"
	"runv/libvm/virtio/fs/passthrough"
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

// TestHostileGuest has a guest misuse the registers of real devices. The VM goes
// on, and ends as the guest wants.
func TestHostileGuest(t *testing.T) {
	for seed := range uint32(3) {
		files, err := passthrough.NewServer(passthrough.Options{})
		if err != nil {
			t.Fatal(err)
		}
		tree, err := fs.New("runv", 1, files)
		if err != nil {
			t.Fatal(err)
		}
		m := run(t, 1, hostilePayload(seed, 3000), []virtio.Device{vsock.New(vm.GuestCID), tree, rng.New()}...)
		if err := ended(t, m); !errors.Is(err, ErrPowerOff) {
			t.Errorf("seed %d: got %v, want ErrPowerOff", seed, err)
		}
		files.Close() //nolint:errcheck // nothing is shared
	}
}
