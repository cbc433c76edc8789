package seccomp

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// reference is libseccomp, in a process of its own.
type reference struct {
	in  io.Writer
	out *bufio.Reader
}

func newReference(t testing.TB) *reference {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc (try: apt-get install gcc libc6-dev libseccomp-dev)")
	}
	if _, err := os.Stat("/usr/include/seccomp.h"); err != nil {
		t.Skip("no libseccomp (try: apt-get install libseccomp-dev)")
	}
	exe := filepath.Join(t.TempDir(), "export")
	if out, err := exec.Command(gcc, "-Wall", "-o", exe, "testdata/export.c", "-lseccomp").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command(exe)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
			t.Error(err)
		}
	})
	return &reference{in, bufio.NewReader(out)}
}

// libseccomp's numbers of architectures and operators (seccomp.h).
var (
	refArchs = map[specs.Arch]uint32{specs.ArchX86_64: 0xc000003e, specs.ArchX86: 0x40000003, specs.ArchX32: 0x4000003e}
	refOps   = map[specs.LinuxSeccompOperator]int{
		specs.OpNotEqual: 1, specs.OpLessThan: 2, specs.OpLessEqual: 3, specs.OpEqualTo: 4,
		specs.OpGreaterEqual: 5, specs.OpGreaterThan: 6, specs.OpMaskedEqual: 7,
	}
)

// compile gives libseccomp's program for a profile.
func (r *reference) compile(t testing.TB, p *profile) Filter {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "D %d\n", p.def)
	for _, a := range p.abis {
		fmt.Fprintf(&b, "A %d\n", refArchs[a.name])
	}
	for _, rule := range p.rules {
		fmt.Fprintf(&b, "R %d %s %d", rule.action, rule.name, len(rule.args))
		for _, a := range rule.args {
			fmt.Fprintf(&b, " %d %d %d %d", a.index, refOps[a.op], a.value, a.two)
		}
		b.WriteByte('\n')
	}
	b.WriteString("E\n")
	if _, err := io.WriteString(r.in, b.String()); err != nil {
		t.Fatal(err)
	}
	var n uint32
	if err := binary.Read(r.out, binary.LittleEndian, &n); err != nil {
		t.Fatalf("libseccomp: %v: %s", err, b.String())
	}
	prog := make([]byte, n)
	if _, err := io.ReadFull(r.out, prog); err != nil {
		t.Fatal(err)
	}
	return Filter{Program: prog}
}

// refNames are system calls of all kinds that libseccomp 2.5 has: shared numbers,
// multiplexed ones, of one ABI only.
var refNames = []string{
	"read", "write", "open", "openat", "close", "ioctl", "mmap", "mmap2", "mprotect", "clone", "clone3", "execve", "exit_group",
	"kill", "personality", "ptrace", "socket", "connect", "bind", "sendto", "recvfrom", "sendmsg", "accept4", "socketpair",
	"shmat", "semop", "msgget", "semtimedop", "stat", "stat64", "getuid", "getuid32", "setns", "mount",
	"umount", "umount2", "arch_prctl", "modify_ldt", "futex", "futex_time64", "preadv2", "rt_sigaction", "rt_sigreturn",
	"waitid", "keyctl", "bpf", "openat2", "faccessat2", "pidfd_getfd", "landlock_restrict_self", "vfork", "fork", "arm_fadvise64_64",
}

// randomProfile makes one that libseccomp 2.5.4 compiles right. Left out is what was
// seen to go wrong there:
//   - conditions that overlap with different actions, whose order is that of its own tree;
//   - several rules that compare the same argument, other than for equality:
//     "a2 < 0, or a2 > 1<<63, or a2 == 133" lets 0xffffffff through;
//   - arguments of what 32-bit x86 multiplexes, and values beyond 32 bits there and on x32.
//
// Besides, in about one of 1000 such profiles a rule of three conditions never matches,
// which by itself does: so the seed is fixed (RUNV_SECCOMP_SEED sets another one).
func randomProfile(rnd *rand.Rand) *specs.LinuxSeccomp {
	actions := slices.DeleteFunc(Actions(), func(a string) bool { return a == string(specs.ActNotify) })
	act := func() (specs.LinuxSeccompAction, *uint) {
		a := specs.LinuxSeccompAction(actions[rnd.IntN(len(actions))])
		if (a == specs.ActErrno || a == specs.ActTrace) && rnd.IntN(2) == 0 {
			return a, ptr(uint(rnd.IntN(4000)))
		}
		return a, nil
	}
	p := &specs.LinuxSeccomp{}
	p.DefaultAction, p.DefaultErrnoRet = act()
	for _, a := range []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32} {
		if rnd.IntN(2) == 0 {
			p.Architectures = append(p.Architectures, a)
		}
	}
	x86 := slices.Contains(p.Architectures, specs.ArchX86)
	values := []uint64{0, 1, 2, 3, 0x7fffffff, 0x80000000, 0xffffffff, 1 << 32, 1<<32 + 1, 1<<63 - 1, 1 << 63, 1<<64 - 1}
	value := func() (v uint64) {
		if x86 || slices.Contains(p.Architectures, specs.ArchX32) {
			defer func() { v &= 1<<32 - 1 }()
		}
		if rnd.IntN(3) == 0 {
			return rnd.Uint64() >> rnd.IntN(64)
		}
		return values[rnd.IntN(len(values))]
	}
	names := slices.Clone(refNames)
	rnd.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for range 1 + rnd.IntN(40) {
		n := 1 + rnd.IntN(3)
		if len(names) < n {
			break
		}
		s := specs.LinuxSyscall{Names: names[:n]}
		names = names[n:]
		s.Action, s.ErrnoRet = act()
		// A rule of several conditions, or several rules of one: more than that
		// can keep libseccomp busy for minutes.
		rules, most := 1, 4
		if rnd.IntN(2) == 0 {
			rules, most = 3, 2
		}
		free := rnd.Perm(6)
		equal := rnd.IntN(3) == 0
		for range rules {
			s.Args = nil
			for range rnd.IntN(most) {
				ops, i := Operators(), free[0]
				if x86 && slices.ContainsFunc(s.Names, multiplexed) {
					break
				}
				if equal && most == 2 {
					ops = []string{string(specs.OpEqualTo)}
				} else {
					free = free[1:]
				}
				s.Args = append(s.Args, specs.LinuxSeccompArg{
					Index: uint(i), Op: specs.LinuxSeccompOperator(ops[rnd.IntN(len(ops))]), Value: value(), ValueTwo: value(),
				})
			}
			p.Syscalls = append(p.Syscalls, s)
		}
	}
	return p
}

func multiplexed(name string) bool { return socketCall(name) != 0 || ipcCall(name) != 0 }

// TestAgainstLibseccomp: the same verdict as libseccomp's program for every number,
// and for arguments at and around what the rules compare with.
func TestAgainstLibseccomp(t *testing.T) {
	r := newReference(t)
	seed := uint64(1)
	if s := os.Getenv("RUNV_SECCOMP_SEED"); s != "" {
		fmt.Sscan(s, &seed) //nolint:errcheck // 1
	}
	for i := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, i))
		compareWith(t, r, randomProfile(rnd), rnd)
	}
}

func compareWith(t *testing.T, r *reference, spec *specs.LinuxSeccomp, rnd *rand.Rand) {
	t.Helper()
	p, err := parse(spec)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Compile(spec)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := newMachine(t, f), newMachine(t, r.compile(t, p))
	all := events(p)
	for range 200 {
		e := all[rnd.IntN(len(all))]
		for j := range e.args {
			e.args[j] = rnd.Uint64() >> rnd.IntN(64)
		}
		all = append(all, e)
	}
	for _, e := range all {
		got, want := ours.run(t, e), theirs.run(t, e)
		if got != want && (got != retENOSYS || !beyond(p, e)) {
			t.Errorf("%+v: verdict %#x, libseccomp's %#x, default %#x, archs %v, rules %+v", e, got, want, p.def, spec.Architectures, rulesFor(p, e))
			return
		}
	}
}

// rulesFor are the rules about an event's number.
func rulesFor(p *profile, e event) []rule {
	a := abiOf(p, e)
	if a == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(p.rules), func(r rule) bool {
		return !slices.ContainsFunc(a.calls(r.name), func(c call) bool { return c.number == e.nr })
	})
}

// beyond says whether a number is above all that a profile knows: it gets ENOSYS,
// of which libseccomp knows nothing (runc patches its program).
func beyond(p *profile, e event) bool {
	a := abiOf(p, e)
	if a == nil || !p.enosys {
		return false
	}
	last, ok := a.last(p.names)
	return ok && e.nr > last
}
