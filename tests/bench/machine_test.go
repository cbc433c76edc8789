package main

import (
	"bytes"
	"debug/elf"
	"slices"
	"strings"
	"testing"
)

func TestMachineOf(t *testing.T) {
	m, err := machineOf(strings.Fields("/usr/bin/qemu -M microvm -nodefaults -m 512M -object memory-backend-file,id=mem,size=512M,share=on,mem-path=/proc/self/fd/3 -append quiet" +
		" -kernel /proc/self/fd/3 -initrd /proc/self/fd/4 -chardev socket,id=c,fd=5 -serial chardev:c" +
		" -device vhost-user-rng,chardev=r -device vhost-user-fs-device,chardev=f,tag=runv -no-reboot"))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields("-M microvm -nodefaults -m 512M -object memory-backend-memfd,id=mem,size=512M,share=on -append quiet -no-reboot")
	if m.qemu != "/usr/bin/qemu" || !slices.Equal(m.args, want) {
		t.Errorf("got %s %v, want %v", m.qemu, m.args, want)
	}
	if m.fs != "vhost-user-fs-device,chardev=f,tag=runv" {
		t.Errorf("fs: got %q", m.fs)
	}
	for _, bad := range []string{"/usr/bin/qemu -m 1M", "/usr/bin/qemu -m"} {
		if _, err := machineOf(strings.Fields(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestResetProgramIsAnExecutable(t *testing.T) {
	f, err := elf.NewFile(bytes.NewReader(resetProgram()))
	if err != nil {
		t.Fatal(err)
	}
	code := make([]byte, len(resetCode))
	p := f.Progs[0]
	if _, err := p.ReadAt(code, int64(f.Entry-p.Vaddr)); err != nil || !bytes.Equal(code, resetCode[:]) {
		t.Errorf("at its entry: %x, %v", code, err)
	}
	if f.Type != elf.ET_EXEC || f.Machine != elf.EM_X86_64 {
		t.Errorf("got %v, %v", f.Type, f.Machine)
	}
}

func TestSteps(t *testing.T) {
	if _, err := steps("step find 5\n"); err == nil {
		t.Error("work that did not say that it was done has no error")
	}
	got, err := steps("x\nstep find 2000000\nstep rm-r 3500000\nwork: done\n")
	if want := []reading{{"find", 2}, {"rm-r", 3.5}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}
