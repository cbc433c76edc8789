package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func env(kv ...string) func(string) string {
	return func(key string) string {
		for i := 0; i+1 < len(kv); i += 2 {
			if kv[i] == key {
				return kv[i+1]
			}
		}
		return ""
	}
}

func TestLoad(t *testing.T) {
	path := write(t, `# comment
kernel = "/boot/vmlinux"
kernel_params = "loglevel=7"
backend = "qemu"
qemu = "/opt/qemu"
memory = 1024
max_memory = 4096
cpus = 2
boot_limit = 20
network_cards = 1
debug = true
`)
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Kernel: "/boot/vmlinux", KernelParams: "loglevel=7", Backend: "qemu", QEMU: "/opt/qemu",
		Memory: 1024, MaxMemory: 4096, CPUs: 2, HostNetwork: HostNetworkRefuse, BootLimit: 20, NetworkCards: 1, Debug: true, KernelFrom: path,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLoadMissing(t *testing.T) {
	got, err := Load(filepath.Join(t.TempDir(), "none.toml"))
	if err != nil || got != Default() {
		t.Errorf("Load = %+v, %v; want the defaults", got, err)
	}
}

func TestLoadPart(t *testing.T) {
	got, err := Load(write(t, "cpus = 4\n"))
	want := Default()
	want.CPUs = 4
	if err != nil || got != want {
		t.Errorf("Load = %+v, %v; want %+v", got, err, want)
	}
}

func TestLoadErrors(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"unknown key", "cpus = 1\n\n  memroy = 5\n", `config.toml:3: unknown key "memroy"`},
		{"unknown table", "[kvm]\nx = 1\n", `config.toml:1: unknown key "kvm`},
		{"unknown dotted key", "cpus = 1\nqmp.x = 1\n", `config.toml:2: unknown key "qmp`},
		{"syntax", "cpus = \n", "line 1"},
		{"type", "cpus = 1\nmemory = \"big\"\n", "memory"},
		{"backend", `backend = "xen"`, `backend "xen": want auto, kvm or qemu`},
		{"memory", "memory = 8", "memory of 8 MiB: want 48 to"},
		{"negative memory", "memory = -1", "memory of -1 MiB"},
		{"max_memory", "max_memory = -1", "max_memory of -1 MiB: want 0 to"},
		{"cpus", "cpus = 0", "0 cpus: want 1 to 64"},
		{"relative kernel", `kernel = "vmlinux"`, `kernel "vmlinux" is not an absolute path`},
		{"relative qemu", `qemu = "bin/qemu"`, `qemu "bin/qemu" is neither`},
		{"params", `kernel_params = "a\nb"`, "control characters"},
		{"internal field", `KernelFrom = "x"`, `unknown key "KernelFrom"`},
		{"large", strings.Repeat("# x\n", maxFile/4+1), "larger than 262144 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load(write(t, tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestAnnotations(t *testing.T) {
	got, err := Default().WithAnnotations(map[string]string{
		"io.runv.kernel": "/k", "io.runv.memory": "256", "io.runv.cpus": "3", "io.runv.backend": "kvm",
		"io.kubernetes.cri.container-type": "sandbox",
	})
	want := Config{Kernel: "/k", KernelFrom: "annotation io.runv.kernel", Memory: 256, CPUs: 3, MaxMemory: 16384, HostNetwork: HostNetworkRefuse, BootLimit: 8, NetworkCards: 3, Backend: "kvm"}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for key, tt := range map[string]struct{ value, want string }{
		"io.runv.memroy":  {"1", "annotation io.runv.memroy is not known"},
		"io.runv.memory":  {"1g", `annotation io.runv.memory: "1g" is not a number of MiB`},
		"io.runv.cpus":    {"x", `annotation io.runv.cpus: "x" is not a number`},
		"io.runv.backend": {"xen", `backend "xen"`},
		"io.runv.kernel":  {"k", "not an absolute path"},
	} {
		_, err := Default().WithAnnotations(map[string]string{key: tt.value})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s=%s: error %v, want %q in it", key, tt.value, err, tt.want)
		}
	}
}

func TestVM(t *testing.T) {
	cpus, memory, huge, many := uint32(5), uint64(100<<20+1), ^uint64(0), ^uint32(0)
	c := Default()
	c.KernelParams = "a=1"
	got, err := c.WithVM(&specs.VM{
		Kernel:   specs.VMKernel{Path: "/k", Parameters: []string{"b=2", "c"}},
		HwConfig: &specs.HWConfig{VCPUs: &cpus, Memory: &memory},
	})
	want := Config{Kernel: "/k", KernelFrom: "vm.kernel.path", KernelParams: "a=1 b=2 c", Memory: 101, CPUs: 5, MaxMemory: 16384, HostNetwork: HostNetworkRefuse, BootLimit: 8, NetworkCards: 3, Backend: BackendAuto}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, hw := range []specs.HWConfig{{VCPUs: &many}, {Memory: &huge}} {
		if _, err := Default().WithVM(&specs.VM{HwConfig: &hw}); err == nil {
			t.Errorf("%+v accepted, want an error", hw)
		}
	}
	if got, err := c.WithVM(nil); err != nil || got != c {
		t.Errorf("without vm: %+v, %v; want no change", got, err)
	}
}

func TestEnv(t *testing.T) {
	got, err := Default().WithEnv(env(EnvKernel, "/k", EnvBackend, "qemu", EnvQEMU, "/q"))
	want := Default()
	want.Kernel, want.KernelFrom, want.Backend, want.QEMU = "/k", EnvKernel, "qemu", "/q"
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if _, err := Default().WithEnv(env(EnvBackend, "xen")); err == nil || !strings.Contains(err.Error(), `RUNV_BACKEND: backend "xen"`) {
		t.Errorf("error %v, want one about the backend", err)
	}
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	got, err = Default().WithEnv(env(EnvKernel, "k"))
	if want := filepath.Join(cwd, "k"); err != nil || got.Kernel != want {
		t.Errorf("kernel %q, %v; want %q", got.Kernel, err, want)
	}
}

func TestBackend(t *testing.T) {
	if c, err := Default().WithBackend("kvm"); err != nil || c.Backend != "kvm" {
		t.Errorf("backend %q, %v; want kvm", c.Backend, err)
	}
	if c, err := Default().WithBackend(""); err != nil || c != Default() {
		t.Errorf("got %+v, %v; want no change", c, err)
	}
	if _, err := Default().WithBackend("xen"); err == nil {
		t.Error("xen accepted")
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("kernel = \"/x\"\ncpus = 2\n[x]\ny = [1, {z = 2}]\n")
	f.Add("a.b.c = 1")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Load(write(t, text))
		if err == nil && c.check() != nil {
			t.Errorf("accepted %+v: %v", c, c.check())
		}
	})
}
