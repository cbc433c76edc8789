package initramfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/cavaliergopher/cpio"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// list reads an archive back as "mode name size" lines and the files' contents.
func list(t *testing.T, r io.Reader) (lines []string, files map[string]string) {
	t.Helper()
	files = make(map[string]string)
	cr := cpio.NewReader(r)
	for {
		h, err := cr.Next()
		if errors.Is(err, io.EOF) {
			return lines, files
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.ModTime.Unix() != 0 || h.Uid != 0 || h.Guid != 0 {
			t.Errorf("%s: mtime %v uid %d gid %d, want all 0", h.Name, h.ModTime.Unix(), h.Uid, h.Guid)
		}
		b, err := io.ReadAll(cr)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%o %s %d", uint32(h.Mode), h.Name, h.Size))
		files[h.Name] = string(b)
	}
}

func TestWrite(t *testing.T) {
	base := []string{
		"40755 dev 0", "40755 proc 0", "40755 sys 0", "40755 run 0", "40755 etc 0", "40755 etc/runv 0",
		"41777 tmp 0", "20600 dev/console 0", "100755 init 5",
	}
	tests := []struct {
		name    string
		modules []Module
		want    []string
		list    string
	}{
		{name: "monolithic", want: base},
		{
			name: "modules",
			modules: []Module{
				{Path: "/lib/modules/6.1/kernel/b/b.ko", Data: []byte("bb")},
				{Path: "/lib/modules/6.1/kernel/a/a.ko", Data: []byte("a")},
				{Path: "/lib/modules/6.1/kernel/b/c.ko", Data: []byte("c")},
			},
			want: append(base[:len(base):len(base)],
				"100644 etc/runv/modules 93",
				"40755 lib 0", "40755 lib/modules 0", "40755 lib/modules/6.1 0", "40755 lib/modules/6.1/kernel 0",
				"40755 lib/modules/6.1/kernel/b 0", "100644 lib/modules/6.1/kernel/b/b.ko 2",
				"40755 lib/modules/6.1/kernel/a 0", "100644 lib/modules/6.1/kernel/a/a.ko 1",
				"100644 lib/modules/6.1/kernel/b/c.ko 1"),
			list: "/lib/modules/6.1/kernel/b/b.ko\n/lib/modules/6.1/kernel/a/a.ko\n/lib/modules/6.1/kernel/b/c.ko\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := Write(&b, []byte("agent"), tt.modules); err != nil {
				t.Fatal(err)
			}
			if b.Len()%4 != 0 {
				t.Errorf("length %d is not a multiple of 4", b.Len())
			}
			got, files := list(t, &b)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
			if files["init"] != "agent" {
				t.Errorf("init: got %q, want %q", files["init"], "agent")
			}
			if got := files["etc/runv/modules"]; got != tt.list {
				t.Errorf("module list: got %q, want %q", got, tt.list)
			}
		})
	}
}

// TestConsoleNode checks the device numbers, which the library does not read.
func TestConsoleNode(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, []byte("x"), nil); err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(b.Bytes(), []byte("dev/console\x00"))
	h := b.Bytes()[i-110 : i]
	if got, want := string(h[78:94]), "0000000500000001"; got != want {
		t.Errorf("rdev: got %s, want %s", got, want)
	}
}

func TestWriteErrors(t *testing.T) {
	ko := []byte("ko")
	tests := []struct {
		name    string
		agent   []byte
		modules []Module
		want    string
	}{
		{"no agent", nil, nil, "agent is empty"},
		{"relative", ko, []Module{{"lib/modules/a.ko", ko}}, "is not a clean path"},
		{"outside", ko, []Module{{"/lib/modules/../../init", ko}}, "is not a clean path"},
		{"newline", ko, []Module{{"/lib/modules/a\nb.ko", ko}}, "is not a clean path"},
		{"twice", ko, []Module{{"/lib/modules/a.ko", ko}, {"/lib/modules/a.ko", ko}}, "given twice"},
		{"empty", ko, []Module{{"/lib/modules/a.ko", nil}}, "is empty"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := Write(io.Discard, tt.agent, tt.modules)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

type fullWriter struct{ left int }

func (f *fullWriter) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, unix.ENOSPC
	}
	return len(p), nil
}

func TestWriteFull(t *testing.T) {
	for left := range 1500 {
		if err := Write(&fullWriter{left}, make([]byte, 1000), nil); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("room for %d bytes: got %v, want ENOSPC", left, err)
		}
	}
}

// TestExtract has cpio(1), another reader of the format, unpack an archive.
func TestExtract(t *testing.T) {
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("no cpio (try: apt-get install cpio)")
	}
	if os.Getuid() != 0 {
		t.Skip("mknod needs root (try: sudo go test)")
	}
	var b bytes.Buffer
	if err := Write(&b, []byte("agent"), []Module{{"/lib/modules/6.1/a.ko", []byte("ko")}}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command("cpio", "-id", "--quiet")
	cmd.Dir, cmd.Stdin = dir, &b
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v: %s", err, out)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir+"/dev/console", &st); err != nil {
		t.Fatal(err)
	}
	if got, want := st.Rdev, unix.Mkdev(5, 1); got != want {
		t.Errorf("console: got %#x, want %#x", got, want)
	}
	got, err := os.ReadFile(dir + "/lib/modules/6.1/a.ko")
	if err != nil || string(got) != "ko" {
		t.Errorf("module: got %q, %v", got, err)
	}
}

func TestAgentFrom(t *testing.T) {
	tests := []struct {
		name string
		fs   fstest.MapFS
		want error
	}{
		{"built by make", fstest.MapFS{"embed/agent": {Data: []byte("x")}}, nil},
		{"built by hand", fstest.MapFS{"embed/README": {}}, ErrNoAgent},
		{"interrupted", fstest.MapFS{"embed/agent": {}}, ErrNoAgent},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := agentFrom(tt.fs)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if err != nil {
				return
			}
			if b, err := io.ReadAll(r); err != nil || string(b) != "x" {
				t.Errorf("got %q, %v", b, err)
			}
		})
	}
}

// TestWriteEmbedded holds the archive that is written by parts against the one
// that is written from memory.
func TestWriteEmbedded(t *testing.T) {
	agent, err := Agent()
	if err != nil {
		t.Skip(err)
	}
	modules := []Module{{Path: "/lib/modules/6.1/a.ko", Data: []byte("ko")}}
	var got, want bytes.Buffer
	if err := errors.Join(WriteEmbedded(&got, modules), Write(&want, agent, modules)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("%d and %d bytes, which differ", got.Len(), want.Len())
	}
	full := &limited{n: len(agent) / 2}
	if err := WriteEmbedded(full, nil); !errors.Is(err, errFull) {
		t.Errorf("got %v, want what the writer said", err)
	}
}

var errFull = errors.New("full")

// limited takes n bytes.
type limited struct{ n int }

func (l *limited) Write(p []byte) (int, error) {
	if len(p) > l.n {
		return 0, errFull
	}
	l.n -= len(p)
	return len(p), nil
}

// BenchmarkWrite is what a VM start pays: an agent of 8 MB into a memfd.
func BenchmarkWrite(b *testing.B) {
	agent := bytes.Repeat([]byte("agent!!!"), 1<<20)
	b.SetBytes(int64(len(agent)))
	for b.Loop() {
		fd, err := unix.MemfdCreate("initramfs", unix.MFD_CLOEXEC)
		if err != nil {
			b.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "initramfs")
		if err := Write(f, agent, nil); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}
