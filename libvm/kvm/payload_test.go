package kvm

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"runv/libvm/virtio"
	"runv/libvm/vm"
)

// patience is how long a test waits for what must happen: these guests may run
// on a KVM that interprets every instruction.
const patience = 20 * time.Second

func backend(t testing.TB) *Backend {
	t.Helper()
	b, err := New()
	if err != nil {
		t.Skipf("%v (try: make kvmhost)", err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// payloadBase is where the code of a payload is, and where it begins: in long
// mode, with the first 4 GiB mapped.
const payloadBase = 0x1000000

// payload makes a kernel of code.
func payload(t testing.TB, code []byte) string {
	t.Helper()
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Entry: payloadBase,
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	p := elf.Prog64{Type: uint32(elf.PT_LOAD), Off: 120, Paddr: payloadBase, Filesz: uint64(len(code)), Memsz: uint64(len(code)) + 4096}
	var b bytes.Buffer
	binary.Write(&b, binary.LittleEndian, h) //nolint:errcheck // a buffer
	binary.Write(&b, binary.LittleEndian, p) //nolint:errcheck // a buffer
	b.Write(code)
	path := filepath.Join(t.TempDir(), "payload")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func initrd(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "initrd"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteString("initrd"); err != nil {
		t.Fatal(err)
	}
	return f
}

// run starts code on cpus vCPUs.
func run(t testing.TB, cpus int, code []byte, devices ...virtio.Device) *Machine {
	t.Helper()
	c := vm.Config{Kernel: payload(t, code), Initrd: initrd(t), Memory: 48 * vm.MiB, CPUs: cpus}
	m, err := backend(t).StartMachine(context.Background(), c, devices)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// ended waits for the VM's own end.
func ended(t testing.TB, m *Machine) error {
	t.Helper()
	select {
	case <-m.Done():
		return m.Err()
	case <-time.After(patience):
		t.Fatalf("the VM did not end; console %q", m.Console())
	}
	return nil
}

// closeTime is how long Close may take: a second, where seconds are the same as
// everywhere.
func closeTime() time.Duration {
	if os.Getenv("RUNV_KVMHOST") != "" {
		return patience
	}
	return time.Second
}

// closes checks that Close ends the VM in time.
func closes(t testing.TB, m *Machine) {
	t.Helper()
	begin := time.Now()
	if err := m.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if took := time.Since(begin); took > closeTime() {
		t.Errorf("Close took %v", took)
	}
	if err := ended(t, m); !errors.Is(err, vm.ErrClosed) {
		t.Errorf("end: got %v, want ErrClosed", err)
	}
}

// console waits until the console ends with want.
func console(t testing.TB, m *Machine, want string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !bytes.HasSuffix(m.Console(), []byte(want)) {
		if time.Now().After(deadline) {
			t.Fatalf("console: got %q, want it to end with %q", m.Console(), want)
		}
		select {
		case <-m.Done():
			t.Fatalf("the VM ended: %v; console %q", m.Err(), m.Console())
		case <-time.After(time.Millisecond):
		}
	}
}

// Pieces of payloads.

// outb is mov dx, port; mov al, v; out dx, al.
func outb(port uint16, v byte) []byte {
	return []byte{0x66, 0xba, byte(port), byte(port >> 8), 0xb0, v, 0xee}
}

func print(s string) (code []byte) { //nolint:revive // the builtin of that name is for debugging
	for _, c := range []byte(s) {
		code = append(code, outb(portSerial, c)...)
	}
	return code
}

// read32 is mov eax, [addr]; write32 is mov dword [addr], v: addresses below
// 2 GiB are sign-extended, so they go through rbx.
func setRBX(addr uint64) []byte { return binary.LittleEndian.AppendUint64([]byte{0x48, 0xbb}, addr) }

func write32(addr uint64, v uint32) []byte {
	return binary.LittleEndian.AppendUint32(append(setRBX(addr), 0xc7, 0x03), v)
}

func read32(addr uint64) []byte { return append(setRBX(addr), 0x8b, 0x03) }

var (
	spin     = []byte{0xfa, 0xeb, 0xfe}       // cli; jmp $
	halt     = []byte{0xfa, 0xf4, 0xeb, 0xfd} // cli; hlt; jmp back
	powerOff = outb(portSleepCtl, 5<<2|1<<5)
)

func code(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
