package fs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"runv/libvm/initramfs"
	"runv/libvm/vhostuser"
)

// qemu is a virtual machine with one file system device.
type qemu struct {
	kernel, initrd string
	dir            string // where the guest finds its tree
	chardev        string
	files          []*os.File
}

// run runs the machine to its end and returns its console.
func (q *qemu) run(ctx context.Context, t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-M", "microvm,accel=tcg,acpi=off,memory-backend=mem",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-m", "256M",
		"-object", "memory-backend-memfd,id=mem,size=256M,share=on",
		"-global", "virtio-mmio.force-legacy=false",
		"-kernel", q.kernel, "-initrd", q.initrd, "-serial", "stdio",
		"-append", "console=ttyS0 reboot=t panic=-1 quiet dir="+q.dir,
		"-chardev", q.chardev, "-device", "vhost-user-fs-device,chardev=c0,tag=runv,queue-size=1024")
	cmd.ExtraFiles = q.files
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("guest: done")) {
		t.Errorf("QEMU: %v\n%s", err, out)
	}
	return string(out)
}

// machine returns what every test with QEMU needs, or skips.
func machine(t *testing.T) *qemu {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("no qemu-system-x86_64 (try: apt-get install qemu-system-x86)")
	}
	q := &qemu{kernel: os.Getenv("RUNV_TEST_KERNEL")}
	if q.kernel == "" {
		t.Skip("no guest kernel (try: make kernel, and RUNV_TEST_KERNEL=FILE)")
	}
	tmp := t.TempDir()
	build := exec.Command("go", "build", "-o", tmp+"/init", "./testdata/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	agent, err := os.ReadFile(tmp + "/init")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := initramfs.Write(&b, agent, nil); err != nil {
		t.Fatal(err)
	}
	q.initrd = tmp + "/initrd"
	if err := os.WriteFile(q.initrd, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return q
}

// steps returns how long the guest says that each step took.
func steps(out string) (list string) {
	for _, m := range regexp.MustCompile(`guest: step (\w+) (\d+) us`).FindAllStringSubmatch(out, -1) {
		list += fmt.Sprintf("%s %s us\n", m[1], m[2])
	}
	return list
}

// TestQEMU has a real guest use the device.
func TestQEMU(t *testing.T) {
	q := machine(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s, dir := newShared(t)
	d, err := New("runv", 1, s)
	if err != nil {
		t.Fatal(err)
	}
	conn, frontend, err := vhostuser.Pair()
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- vhostuser.Serve(ctx, conn, d) }()
	q.dir, q.chardev, q.files = "/mnt/t/tree", "socket,id=c0,fd=3", []*os.File{frontend}
	var before, after syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	out := q.run(ctx, t)
	syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	frontend.Close() //nolint:errcheck // QEMU had it
	if err := <-served; err != nil {
		t.Error(err)
	}
	t.Logf("runv, %v user, %v system:\n%s", time.Duration(after.Utime.Nano()-before.Utime.Nano()),
		time.Duration(after.Stime.Nano()-before.Stime.Nano()), steps(out))
	if !regexp.MustCompile(`guest: mountinfo .* /t/tree /tree `).MatchString(out) {
		t.Errorf("mountinfo does not show the tree's name:\n%s", out)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "check")); err != nil || string(b) != "m" {
		t.Errorf("what the guest wrote through a mapping is %q, %v", b, err)
	}
	fi, err := os.Stat(filepath.Join(dir, "check"))
	if err != nil {
		t.Fatal(err)
	}
	if st := fi.Sys().(*syscall.Stat_t); st.Uid != 12 || st.Gid != 34 || st.Mode != syscall.S_IFREG|0o640 {
		t.Errorf("check is %d:%d %#o", st.Uid, st.Gid, st.Mode)
	}
	if l, err := os.ReadDir(dir); err != nil || len(l) != 3 {
		t.Errorf("left are %v, %v", l, err)
	}
}

// TestVirtiofsd does the same with virtiofsd, to compare.
func TestVirtiofsd(t *testing.T) {
	const daemon = "/usr/lib/qemu/virtiofsd"
	if _, err := os.Stat(daemon); err != nil || os.Getenv("RUNV_TEST_COMPARE") == "" {
		t.Skip("not comparing (try: apt-get install qemu-system-common, and RUNV_TEST_COMPARE=1)")
	}
	q := machine(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	dir := t.TempDir()
	socket := dir + "/socket"
	if err := os.Mkdir(dir+"/tree", 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, daemon, "--socket-path="+socket, "-o", "source="+dir+"/tree,sandbox=chroot,xattr,cache=auto,timeout=0.5")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("virtiofsd does not listen: %s", log.Bytes())
		}
		time.Sleep(time.Millisecond)
	}
	q.dir, q.chardev = "/mnt", "socket,id=c0,path="+socket
	out := q.run(ctx, t)
	cancel()
	cmd.Wait() //nolint:errcheck // it was killed
	t.Logf("virtiofsd, %v user, %v system:\n%s", cmd.ProcessState.UserTime(), cmd.ProcessState.SystemTime(), steps(out))
}
