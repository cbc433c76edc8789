package qemu

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/virtio"
	"runv/libvm/virtio/balloon"
	"runv/libvm/virtio/queue"
	"runv/libvm/virtio/rng"
	"runv/libvm/vm"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// config is a VM that no QEMU of these tests really boots.
func config(t *testing.T) vm.Config {
	t.Helper()
	initrd, err := os.CreateTemp(t.TempDir(), "initrd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { initrd.Close() })
	return vm.Config{Kernel: os.DevNull, Initrd: initrd, Cmdline: "quiet", Memory: 64 * vm.MiB, CPUs: 2}
}

// fake makes a program that stands for QEMU, to see how its end is told.
func fake(t *testing.T, script string) *Backend {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return backend(t, path)
}

func backend(t *testing.T, binary string) *Backend {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to make namespaces (try: sudo make test)")
	}
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	b, err := New(binary, dir, slog.New(slog.DiscardHandler), NoKVM() == nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func ended(t *testing.T, v vm.VM) error {
	t.Helper()
	select {
	case <-v.Done():
		return v.Err()
	case <-time.After(patience):
		t.Fatal("the VM did not end")
	}
	return nil
}

func TestArguments(t *testing.T) {
	c := config(t)
	var a arguments
	a.machine(c, accelTCG, 2_400_123, "/ram")
	got := strings.Join(a.args, " ")
	for _, want := range []string{"-M microvm,isa-serial=on,memory-backend=mem,acpi=off,pit=off ", "memory-backend-file,id=mem,size=64M,share=on,mem-path=/ram", "-smp 2", "-m 64M", "-sandbox on,", "-append quiet reboot=t", " acpi=off ", "tsc_early_khz=2400123 tsc=reliable", "-nodefaults", "-no-reboot", "-accel tcg,"} {
		if !strings.Contains(got, want) {
			t.Errorf("arguments lack %q: %s", want, got)
		}
	}
	if strings.Contains(got, "mem=64M") {
		t.Errorf("a limit where there is no more memory: %s", got)
	}
	c.ACPI, c.MaxMemory = true, 1024*vm.MiB
	var withACPI arguments
	withACPI.machine(c, accelKVM, 0, "/ram")
	got = strings.Join(withACPI.args, " ")
	for _, want := range []string{"acpi=on ", "-accel kvm -cpu host", "-m 1024M", "size=1024M", " mem=64M"} {
		if !strings.Contains(got, want) {
			t.Errorf("arguments lack %q: %s", want, got)
		}
	}
	for _, not := range []string{"pit=off", "tsc_early_khz", "acpi=off", "noreplace-smp"} {
		if strings.Contains(got, not) {
			t.Errorf("arguments have %q: %s", not, got)
		}
	}
}

// tagged is a file system device as far as its configuration goes.
type tagged struct{ tag string }

func (tagged) ID() virtio.ID                      { return virtio.IDFS }
func (tagged) Features() uint64                   { return 0 }
func (tagged) QueueSizes() []uint16               { return []uint16{128, 128} }
func (d tagged) Config() []byte                   { return append([]byte(d.tag), make([]byte, 40)...) }
func (tagged) Start(uint64, []*queue.Queue) error { return nil }
func (tagged) Wait() error                        { return nil }

func TestDeviceArguments(t *testing.T) {
	for _, tt := range []struct {
		name   string
		device virtio.Device
		want   string // "" for an error
	}{
		{"fs", tagged{"runv"}, "vhost-user-fs-device,chardev=c,tag=runv,queue-size=1024"},
		{"fs with an option for a tag", tagged{"a,b=c"}, ""},
		{"fs without a tag", tagged{""}, ""},
		{"rng", rng.New(), "vhost-user-rng,chardev=c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var a arguments
			err := a.device(tt.device, "c")
			if got := strings.Join(a.args, " "); (err != nil) != (tt.want == "") || !strings.HasSuffix(got, tt.want) {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestOwnDevice(t *testing.T) {
	var a arguments
	if a.ownDevice(rng.New()) || !a.ownDevice(balloon.New()) || strings.Join(a.args, " ") != "-device virtio-balloon-device,free-page-reporting=on" {
		t.Errorf("got %q", a.args)
	}
}

func TestEndIsToldAsItWas(t *testing.T) {
	for _, tt := range []struct{ name, script, want string }{
		{"refused its arguments", "echo bad kernel >&2; exit 1", "exited with status 1: bad kernel"},
		{"killed", "kill -9 $$", "killed by signal 9 (SIGKILL)"},
		{"crashed", "kill -SEGV $$", "killed by signal 11 (SIGSEGV)"},
		{"ended", "exit 0", "powered off or reset"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := fake(t, tt.script).Start(context.Background(), config(t), []virtio.Device{rng.New()})
			if err != nil {
				t.Fatal(err)
			}
			if err := ended(t, v); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
			if err := v.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

func TestCloseEndsAHangingQEMU(t *testing.T) {
	v, err := fake(t, "exec sleep 1000").Start(context.Background(), config(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.CPUTime(); err != nil {
		t.Errorf("CPUTime: %v", err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ended(t, v); !errors.Is(err, vm.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

func TestQEMUGetsNoOtherFiles(t *testing.T) {
	// What was leaked to the test itself is not QEMU's; the monitor does the same.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	// exec.Cmd passes only what it is told; the script lists what it has.
	v, err := fake(t, "ls /proc/self/fd >&2; env >&2; exit 3").Start(context.Background(), config(t), []virtio.Device{rng.New()})
	if err != nil {
		t.Fatal(err)
	}
	got := ended(t, v).Error()
	// 0 to 2, then memory, kernel, initrd, console, QMP, one device; ls's own.
	if want := ": 0 1 2 3 4 5 6 7 8 9 PWD"; !strings.Contains(got, want) {
		t.Errorf("open files: got %q, want %q", got, want)
	}
	if strings.Contains(got, "HOME=") {
		t.Errorf("QEMU has our environment: %q", got)
	}
}

func TestRealQEMUSaysWhatIsWrong(t *testing.T) {
	if _, err := exec.LookPath(DefaultBinary); err != nil {
		t.Skip("no QEMU (try: apt-get install qemu-system-x86)")
	}
	v, err := backend(t, "").Start(context.Background(), config(t), []virtio.Device{rng.New()})
	if err != nil {
		t.Fatal(err)
	}
	if err := ended(t, v); err == nil || !strings.Contains(err.Error(), "kernel") {
		t.Errorf("empty kernel: got %v, want an error that says so", err)
	}
}

func TestMissingKernel(t *testing.T) {
	c := config(t)
	c.Kernel = "/no/such/kernel"
	_, err := fake(t, "exit 0").Start(context.Background(), c, nil)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), c.Kernel) {
		t.Errorf("got %v, want an error that names it", err)
	}
}

func TestFindMissing(t *testing.T) {
	_, err := Find("/no/such/qemu")
	if err == nil || !strings.Contains(err.Error(), "apt-get install") {
		t.Errorf("got %v, want an error with the cure", err)
	}
}

func TestHasVirtualization(t *testing.T) {
	for _, tt := range []struct {
		name, cpuinfo string
		want          bool
	}{
		{"amd", "processor\t: 0\nflags\t\t: fpu svm npt\n", true},
		{"intel", "flags\t\t: fpu vmx\n", true},
		{"none", "flags\t\t: fpu vme\nvmx flags\t: vnmi\n", false},
		{"empty", "", false},
	} {
		if got := hasVirtualization([]byte(tt.cpuinfo)); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestOneLine(t *testing.T) {
	if got, want := oneLine([]byte("a\n b\r\n")), "a b"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := oneLine(bytes.Repeat([]byte("\n"), 3)); !strings.Contains(got, "nothing") {
		t.Errorf("got %q for an empty message", got)
	}
}
