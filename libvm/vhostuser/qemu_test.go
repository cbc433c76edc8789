package vhostuser

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"runv/libvm/initramfs"
	"runv/libvm/virtio"
	"runv/libvm/virtio/queue"
	"runv/libvm/virtio/rng"
)

// recorder notes how often, and with which queues, a device was started.
type recorder struct {
	virtio.Device
	mu     sync.Mutex
	starts []string
}

func (r *recorder) Start(features uint64, queues []*queue.Queue) error {
	s := ""
	for _, q := range queues {
		if q == nil {
			s += "-"
		} else {
			s += fmt.Sprintf("[%d]", q.Size())
		}
	}
	r.mu.Lock()
	r.starts = append(r.starts, s)
	r.mu.Unlock()
	return r.Device.Start(features, queues)
}

func (r *recorder) started() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.starts
}

// idle is a device of any type that takes nothing from its queues.
type idle struct {
	id      virtio.ID
	sizes   []uint16
	config  []byte
	workers virtio.Workers
}

func (d *idle) ID() virtio.ID        { return d.id }
func (d *idle) Features() uint64     { return 0 }
func (d *idle) QueueSizes() []uint16 { return d.sizes }
func (d *idle) Config() []byte       { return d.config }
func (d *idle) Wait() error          { return d.workers.Wait() }
func (d *idle) Start(_ uint64, queues []*queue.Queue) error {
	d.workers.Serve(queues, func(_ int, q *queue.Queue) error {
		<-q.Done()
		return nil
	})
	return nil
}

// TestQEMU has a real guest on the real QEMU use our devices, and reset one of
// them twice.
func TestQEMU(t *testing.T) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("no qemu-system-x86_64 (try: apt-get install qemu-system-x86)")
	}
	kernel := os.Getenv("RUNV_TEST_KERNEL")
	if kernel == "" {
		t.Skip("no guest kernel (try: make kernel, and RUNV_TEST_KERNEL=FILE)")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, qemu, "-M", "microvm,accel=tcg,acpi=off,memory-backend=mem",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-m", "256M",
		"-object", "memory-backend-memfd,id=mem,size=256M,share=on",
		"-global", "virtio-mmio.force-legacy=false",
		"-kernel", kernel, "-initrd", guestInitrd(t), "-serial", "stdio",
		"-append", "console=ttyS0 reboot=t panic=-1 quiet rng_core.default_quality=0")
	random := &recorder{Device: rng.New()}
	vsock := &recorder{Device: &idle{id: virtio.IDVsock, sizes: []uint16{128, 128, 128}, config: []byte{3, 0, 0, 0, 0, 0, 0, 0}}}
	fs := &recorder{Device: &idle{id: virtio.IDFS, sizes: []uint16{128, 128, 128}, config: make([]byte, 40)}}
	var served []<-chan error
	for i, d := range []struct {
		device string
		served *recorder
	}{{"vhost-user-rng", random}, {"vhost-user-vsock-device", vsock}, {"vhost-user-fs-device,tag=runv,queue-size=128", fs}} {
		served = append(served, attach(ctx, t, cmd, i, d.device, d.served))
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	for _, f := range cmd.ExtraFiles {
		f.Close() //nolint:errcheck // QEMU had it
	}
	t.Logf("QEMU: %v\n%s", err, out.Bytes())
	for i, c := range served {
		if err := <-c; err != nil {
			t.Errorf("device %d: %v", i, err)
		}
	}
	reads := regexp.MustCompile(`guest: virtio_rng\.\d+ ([0-9a-f]{32})`).FindAllSubmatch(out.Bytes(), -1)
	if len(reads) != 3 || bytes.Equal(reads[0][1], reads[1][1]) || !bytes.Contains(out.Bytes(), []byte("guest: done")) {
		t.Errorf("the guest read %d times, want 3 times", len(reads))
	}
	if got := random.started(); len(got) != 3 {
		t.Errorf("rng was started %q, want three times", got)
	}
	if got := vsock.started(); len(got) != 1 || got[0] != "[1024][1024]-" {
		t.Errorf("vsock was started %q, want once, with rx and tx", got)
	}
	if got := fs.started(); len(got) != 1 || got[0] != "[1024][1024]-" {
		t.Errorf("fs was started %q, want once, with hiprio and one request queue", got)
	}
}

// attach gives QEMU a device that d serves.
func attach(ctx context.Context, t *testing.T, cmd *exec.Cmd, i int, device string, d virtio.Device) <-chan error {
	t.Helper()
	conn, frontend, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	fd := 3 + len(cmd.ExtraFiles)
	cmd.ExtraFiles = append(cmd.ExtraFiles, frontend)
	cmd.Args = append(cmd.Args, "-chardev", fmt.Sprintf("socket,id=c%d,fd=%d", i, fd),
		"-device", fmt.Sprintf("%s,chardev=c%d", device, i))
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, conn, d) }()
	return served
}

// guestInitrd builds testdata/guest and puts it into a first filesystem.
func guestInitrd(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "init")
	build := exec.Command("go", "build", "-o", bin, "./testdata/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	agent, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "initrd")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := initramfs.Write(f, agent, nil); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}
