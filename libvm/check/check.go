// Package check finds out what of runv works on this host, and what to do about
// what does not.
package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/config"
	"runv/libvm/initramfs"
	"runv/libvm/kernel"
	"runv/libvm/kvm"
	"runv/libvm/qemu"
)

// Result is what was found out about one thing.
type Result struct {
	Name   string // what was looked at: "kernel", "backend qemu (tcg)"
	OK     bool
	Needed bool   // without it no container runs
	Detail string // what was found, or what is wrong
	Cure   string // what to do, if it is not OK
}

// Options say what to look at.
type Options struct {
	SettingsErr error  // what is wrong with config.toml, the environment or a flag
	Kernel      string // path of the guest kernel, "" if KernelErr
	KernelErr   error  // why no kernel was found
	Backend     string // that is asked for, one of libvm/config's
	QEMU        string // binary, "" for the default
	Root        string // directory of the states
}

// qemuTimeout bounds the call of qemu --version.
const qemuTimeout = 20 * time.Second

// Host looks at everything. Its results are in the order in which a container
// needs them.
func Host(ctx context.Context, o Options) []Result {
	rs := []Result{privileges(), hostKernel(), cgroups(), stateRoot(o.Root), settings(o.SettingsErr), agent(), guestKernel(o)}
	own := ownVMM(ctx)
	all := append([]backend{own}, backends(ctx, o.QEMU, own.slow)...)
	for _, b := range all {
		rs = append(rs, b.Result)
	}
	return append(rs, choice(all, o.Backend))
}

// Works says whether a container can run, given the results.
func Works(rs []Result) bool {
	backend := false
	for _, r := range rs {
		if r.Needed && !r.OK {
			return false
		}
		backend = backend || r.OK && strings.HasPrefix(r.Name, backendPrefix)
	}
	return backend
}

// backendPrefix begins the names of the results of which one must be OK.
const backendPrefix = "backend "

func privileges() Result {
	r := Result{Name: "privileges", Needed: true, OK: os.Geteuid() == 0, Detail: fmt.Sprintf("uid %d", os.Geteuid())}
	if !r.OK {
		r.Cure = "run it as root: namespaces and mounts are made on the host"
	}
	return r
}

// hostKernel checks for the newest system call that is needed, mount_setattr
// (Linux 5.12), without doing anything with it.
func hostKernel() Result {
	r := Result{Name: "host kernel", Needed: true, OK: true, Detail: release()}
	err := unix.MountSetattr(-1, "", 0, &unix.MountAttr{})
	if errors.Is(err, unix.ENOSYS) {
		r.OK = false
		r.Detail += ": no mount_setattr"
		r.Cure = "boot Linux 5.12 or later"
	}
	return r
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// stateRoot checks that a state can be written, below the first directory of
// root that exists.
func stateRoot(root string) Result {
	r := Result{Name: "state directory", Needed: true, Detail: root}
	dir := root
	for {
		if _, err := os.Stat(dir); err == nil || dir == "/" || dir == "." {
			break
		}
		dir = dir[:max(strings.LastIndexByte(dir, '/'), 1)]
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		r.Detail = fmt.Sprintf("%s: %v", dir, err)
		r.Cure = "make it writable, or choose another with --root"
		return r
	}
	r.OK = true
	return r
}

// settings checks what is the same for all bundles.
func settings(err error) Result {
	if err != nil {
		return Result{Name: "settings", Needed: true, Detail: err.Error(), Cure: "correct it there, or take it out"}
	}
	return Result{Name: "settings", Needed: true, OK: true, Detail: "of config.toml, environment and flags"}
}

func agent() Result {
	b, err := initramfs.Agent()
	if err != nil {
		return Result{Name: "agent", Needed: true, Detail: err.Error(), Cure: "build runv with make"}
	}
	return Result{Name: "agent", Needed: true, OK: true, Detail: fmt.Sprintf("embedded, %.1f MB", float64(len(b))/1e6)}
}

func guestKernel(o Options) Result {
	r := Result{Name: "guest kernel", Needed: true, Cure: "run make kernel, or name one with --kernel FILE or RUNV_KERNEL"}
	if o.KernelErr != nil {
		r.Detail = o.KernelErr.Error()
		return r
	}
	f, err := os.Open(o.Kernel)
	if err != nil {
		r.Detail = err.Error()
		return r
	}
	defer f.Close() //nolint:errcheck // only read from
	st, err := f.Stat()
	if err != nil {
		r.Detail = err.Error()
		return r
	}
	image, err := kernel.Inspect(f, st.Size())
	if err == nil {
		err = image.CheckPVH()
	}
	if err != nil {
		r.Detail = fmt.Sprintf("%s: %v", o.Kernel, err)
		return r
	}
	r.OK, r.Cure = true, ""
	r.Detail = fmt.Sprintf("%s: %s, Linux %s", o.Kernel, image.Format, image.Release)
	return r
}

// backend is what was found out about one way to run a guest.
type backend struct {
	Result
	name string // as it is asked for
	slow error  // why it would be slow, or nil
}

// backends reports each way to run a guest with QEMU. slow is why KVM is not
// worth using, if so.
func backends(ctx context.Context, binary string, slow error) []backend {
	kvm := backend{name: config.BackendQEMU, Result: Result{Name: backendPrefix + "qemu (kvm)"}}
	tcg := backend{name: config.BackendQEMU, Result: Result{Name: backendPrefix + "qemu (tcg)"}}
	version, err := qemuVersion(ctx, binary)
	if err != nil {
		kvm.Detail, kvm.Cure = err.Error(), "apt-get install qemu-system-x86"
		tcg.Detail, tcg.Cure = kvm.Detail, kvm.Cure
		return []backend{kvm, tcg}
	}
	tcg.OK, tcg.Detail = true, version+": works everywhere, by emulation"
	if slow == nil {
		slow = qemu.NoKVM()
	}
	if slow != nil {
		kvm.Detail, kvm.Cure = slow.Error(), "guests will be emulated, which is slow but works"
		return []backend{kvm, tcg}
	}
	kvm.OK, kvm.Detail = true, version
	return []backend{kvm, tcg}
}

// ownVMM reports runv's own VMM, for which a probe guest is run.
func ownVMM(ctx context.Context) backend {
	r := backend{name: config.BackendKVM, Result: Result{Name: backendPrefix + "kvm", Cure: "--backend auto runs guests with qemu"}}
	err := qemu.NoKVM()
	if err == nil {
		err = kvm.Check()
	}
	if err == nil {
		err = kvm.Probe(ctx)
		if errors.Is(err, kvm.ErrSlow) {
			r.slow = err
		}
	}
	if err != nil {
		r.Detail = err.Error()
		return r
	}
	r.OK, r.Detail, r.Cure = true, "runv's own VMM: a probe guest ran at the speed of the processor", ""
	return r
}

// choice says what the backend that is asked for comes to: of auto, and of qemu,
// the first way that works.
func choice(all []backend, asked string) Result {
	r := Result{Name: "--backend " + asked, Needed: true, Detail: "does not work here", Cure: "--backend auto takes what works"}
	if asked == config.BackendAuto {
		r.Detail, r.Cure = "no backend works", ""
	}
	for _, b := range all {
		if b.OK && (asked == config.BackendAuto || asked == b.name) {
			r.OK, r.Detail = true, "takes "+b.Name[len(backendPrefix):]
			break
		}
	}
	return r
}

func qemuVersion(ctx context.Context, binary string) (string, error) {
	path, err := qemu.Find(binary)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, qemuTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", path, err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return path + ", " + strings.TrimPrefix(line, "QEMU emulator "), nil
}
