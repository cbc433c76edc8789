package kvm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/kernel/kerneltest"
	"runv/libvm/mem"
	"runv/libvm/vm"
)

func TestEndsAreToldApart(t *testing.T) {
	for _, tt := range []struct {
		name string
		code []byte
		want error
	}{
		{"power off", code(print("bye"), powerOff, halt), ErrPowerOff},
		{"keyboard controller", code(print("bye"), outb(portKbdCtl, 0xfe), halt), ErrReset},
		{"reset register", code(print("bye"), outb(portReset, 1), halt), ErrReset},
		// xor eax, eax; push rax; push rax; lidt [rsp]; and then to where no page is
		{"triple fault", code(print("bye"), []byte{0x31, 0xc0, 0x50, 0x50, 0x0f, 0x01, 0x1c, 0x24}, write32(1<<40, 0)), ErrTripleFault},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := run(t, 1, tt.code)
			if err := ended(t, m); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if got := string(m.Console()); got != "bye" {
				t.Errorf("console: got %q, want %q", got, "bye")
			}
			if err := m.Close(); err != nil {
				t.Errorf("Close after the end: %v", err)
			}
			if err := m.Err(); !errors.Is(err, tt.want) {
				t.Errorf("after Close: got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestCloseEndsWhateverTheGuestDoes(t *testing.T) {
	for _, tt := range []struct {
		name string
		code []byte
	}{
		{"spins with interrupts off", code(print("!"), spin)},
		{"halts for ever", code(print("!"), halt)},
		{"floods its console", code(print("!"), []byte{0xee, 0xeb, 0xfd})},                                       // out dx, al; jmp
		{"reads a device for ever", code(print("!"), setRBX(uint64(mmioStart)), []byte{0x8b, 0x03, 0xeb, 0xfc})}, // mov eax, [rbx]; jmp
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, cpus := range []int{1, 4} {
				m := run(t, cpus, tt.code)
				console(t, m, "!")
				closes(t, m)
			}
		})
	}
}

func TestCloseAtOnce(t *testing.T) {
	for range 20 {
		closes(t, run(t, 3, spin))
	}
}

func TestCPUTime(t *testing.T) {
	m := run(t, 2, code(print("!"), spin))
	console(t, m, "!")
	deadline := time.Now().Add(patience)
	var last int64
	for last < int64(20*time.Millisecond) {
		n, err := m.CPUTime()
		if err != nil || n < last {
			t.Fatalf("CPUTime: %d, %v after %d", n, err, last)
		}
		if last = n; time.Now().After(deadline) {
			t.Fatalf("a spinning guest used %d ns", n)
		}
	}
	closes(t, m)
	if n, err := m.CPUTime(); n < last || err != nil {
		t.Errorf("after the end: %d, %v, want at least %d", n, err, last)
	}
}

func TestUnknownAddressesReadAsOnes(t *testing.T) {
	// Compare, and print what is right: cmp eax, -1; jne over the print.
	is := func(s string) []byte {
		p := print(s)
		return code([]byte{0x83, 0xf8, 0xff, 0x75, byte(len(p))}, p)
	}
	m := run(t, 1, code(
		read32(uint64(mmioStart)+maxDevices*mmioSize), is("m"),
		read32(uint64(holeStart)), is("h"),
		write32(uint64(holeStart), 1),
		[]byte{0x66, 0xba, 0xf8, 0x0c, 0xed}, is("p"), // in eax, 0xcf8
		powerOff))
	if err := ended(t, m); !errors.Is(err, ErrPowerOff) {
		t.Fatalf("got %v", err)
	}
	if got := string(m.Console()); got != "mhp" {
		t.Errorf("console: got %q, want %q", got, "mhp")
	}
}

func TestSecondProcessorStarts(t *testing.T) {
	// In real mode at 0x8000: mov dx, 0x3f8; mov al, '2'; out dx, al; hlt; jmp.
	trampoline := []byte{0xba, 0xf8, 0x03, 0xb0, '2', 0xee, 0xf4, 0xeb, 0xfd, 0, 0, 0}
	var c []byte
	for i := 0; i < len(trampoline); i += 4 {
		b := trampoline[i:]
		c = append(c, write32(0x8000+uint64(i), uint32(b[0])|uint32(b[1])<<8|uint32(b[2])<<16|uint32(b[3])<<24)...)
	}
	const icr = 0xfee00300
	c = append(c, write32(0xfee000f0, 0x1ff)...) // enable the local APIC
	c = append(c, print("1")...)
	c = append(c, write32(icr+0x10, 1<<24)...) // to local APIC 1
	c = append(c, write32(icr, 0x4500)...)     // INIT
	c = append(c, write32(icr, 0x4608)...)     // start-up at 0x8000
	m := run(t, 2, code(c, spin))
	console(t, m, "12")
	closes(t, m)
}

func TestPauseAndResume(t *testing.T) {
	m := run(t, 2, code(print("!"), []byte{0xee, 0xeb, 0xfd}))
	console(t, m, "!!!")
	m.ports.serial.mu.Lock()
	seen := &counter{}
	m.ports.serial.out = seen
	m.ports.serial.mu.Unlock()
	for range 10 {
		if err := m.Pause(); err != nil {
			t.Fatal(err)
		}
		at := seen.load()
		time.Sleep(2 * time.Millisecond) // nothing may happen meanwhile
		if got := seen.load(); got != at {
			t.Fatalf("a paused guest went on: %d bytes, then %d", at, got)
		}
		if err := m.Resume(); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(patience)
		for seen.load() == at {
			if time.Now().After(deadline) {
				t.Fatal("the guest did not go on")
			}
			time.Sleep(100 * time.Microsecond)
		}
	}
	if err := m.Resume(); err == nil {
		t.Error("Resume without Pause: no error")
	}
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	closes(t, m)
	if err := m.Pause(); err == nil {
		t.Error("Pause after the end: no error")
	}
}

func TestGoSignalsDoNotDisturb(t *testing.T) {
	m := run(t, 1, code(print("!"), spin))
	console(t, m, "!")
	tid := int(m.vcpus[0].tid.Load())
	for range 200 {
		if err := unix.Tgkill(os.Getpid(), tid, syscall.SIGURG); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-m.Done():
		t.Fatalf("a signal ended the VM: %v", m.Err())
	default:
	}
	closes(t, m)
}

func TestMemoryAroundTheHole(t *testing.T) {
	for _, tt := range []struct {
		size, given uint64
		want        []mem.GPA // start, end of each region
	}{
		{64 << 20, 64 << 20, []mem.GPA{0, 64 << 20}},
		{3 << 30, 3 << 30, []mem.GPA{0, 3 << 30}},
		{4 << 30, 4 << 30, []mem.GPA{0, 3 << 30, 4 << 30, 5 << 30}},
		{4 << 30, 64 << 20, []mem.GPA{0, 64 << 20}},
		{8 << 30, 4 << 30, []mem.GPA{0, 3 << 30, 4 << 30, 5 << 30}},
	} {
		r, err := newRAM(tt.size, tt.given)
		if err != nil {
			t.Fatal(err)
		}
		var got []mem.GPA
		for _, g := range r.mem.Regions() {
			got = append(got, g.GPA, g.GPA+mem.GPA(len(g.Host)))
		}
		r.close()
		if len(got) != len(tt.want) {
			t.Fatalf("%d bytes: got %#x, want %#x", tt.size, got, tt.want)
		}
		for i := range got {
			if got[i] != tt.want[i] {
				t.Errorf("%d bytes: got %#x, want %#x", tt.size, got, tt.want)
			}
		}
	}
}

func TestStartRefuses(t *testing.T) {
	b := backend(t)
	good := vm.Config{Kernel: payload(t, spin), Initrd: initrd(t), Memory: 48 * vm.MiB, CPUs: 1}
	for _, tt := range []struct {
		name   string
		change func(*vm.Config)
		want   string
	}{
		{"no kernel", func(c *vm.Config) { c.Kernel = "/no/such/kernel" }, "no such file"},
		{"a directory", func(c *vm.Config) { c.Kernel = t.TempDir() }, "not a regular file"},
		{"a device", func(c *vm.Config) { c.Kernel = "/dev/zero" }, "not a regular file"},
		{"not a kernel", func(c *vm.Config) { c.Kernel = c.Initrd.Name() }, "not a kernel"},
		{"command line too long", func(c *vm.Config) { c.Cmdline = strings.Repeat("x", 4000) }, "command line"},
		{"too many cpus", func(c *vm.Config) { c.CPUs = vm.MaxCPUs + 1 }, "cpus"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := good
			tt.change(&c)
			m, err := b.Start(context.Background(), c, nil)
			if err == nil {
				m.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// TestPVHEntry enters a kernel that is no Linux by its note: in protected mode, with
// the start info, whose only module is the initramfs.
func TestPVHEntry(t *testing.T) {
	image := filepath.Join(t.TempDir(), "pvh")
	if err := os.WriteFile(image, kerneltest.PVH(code(
		[]byte{0x81, 0x3b, 0x78, 0xc5, 0x6e, 0x33, 0x75, 0xfe},    // cmp dword [ebx], magic; jne $
		[]byte{0x8b, 0x43, 0x10, 0x8b, 0x00},                      // mov eax, [ebx+16]; mov eax, [eax]
		[]byte{0x81, 0x38, 'i', 'n', 'i', 't', 0x75, 0xfe},        // cmp dword [eax], "init"; jne $
		[]byte{0x0f, 0x20, 0xc0, 0xa9, 0, 0, 0, 0x80, 0x75, 0xfe}, // mov eax, cr0; test eax, PG; jne $
		print("!"), powerOff)...), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := backend(t).StartMachine(context.Background(), vm.Config{Kernel: image, Initrd: initrd(t), Memory: 48 * vm.MiB, CPUs: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	if err := ended(t, m); !errors.Is(err, ErrPowerOff) || string(m.Console()) != "!" {
		t.Errorf("got %v, console %q", err, m.Console())
	}
}
