package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"runv/libvm/kvm"
)

func TestStartCPU(t *testing.T) {
	for _, tt := range []struct {
		name, log string
		want      []reading
	}{
		{"no line", `level=debug msg=done step="start vm"`, nil},
		{"a line", "level=debug msg=done step=terminal\nlevel=debug msg=\"set up the virtual machine\" cpu_us=7390\nlevel=debug msg=done", []reading{{value: 7.39}}},
		{"no number", `msg="set up the virtual machine" cpu_us=x`, nil},
		{"too large", `msg="set up the virtual machine" cpu_us=99999999999999999999`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := startCPU([]byte(tt.log))
			if (err == nil) != (tt.want != nil) || !slices.Equal(got, tt.want) {
				t.Errorf("got %v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

func TestBootPhases(t *testing.T) {
	begin := time.Now()
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	got := bootPhases(kvm.Timing{Begin: begin, Devices: at(1), Loaded: at(3), Run: at(6)}, at(106), 70e6)
	want := []reading{{"vm-and-devices", 1}, {"load-kernel", 2}, {"vcpus", 3}, {"kernel-by-its-clock", 70}, {"early-kernel-and-agent", 30}, {"all", 106}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	sum := 0.0
	for _, r := range got[:len(got)-1] {
		sum += r.value
	}
	if sum != got[len(got)-1].value {
		t.Errorf("the phases are %v ms, all is %v", sum, got[len(got)-1].value)
	}
}

func TestCPUOf(t *testing.T) {
	got, err := cpuOf(exec.Command("sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done"))
	if err != nil || len(got) != 1 || got[0].value <= 0 {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := cpuOf(exec.Command("sh", "-c", "echo broken >&2; exit 3")); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("got %v, want what the command said", err)
	}
}

func TestMeter(t *testing.T) {
	begin := time.Now()
	m := meter{first: begin, last: begin.Add(2 * time.Second), head: 1 << 20, bytes: 5 << 20}
	if got, err := m.rate(5 << 20); err != nil || got != 2*(1<<20)/mb {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := m.rate(6 << 20); err == nil {
		t.Error("bytes that are missing are no error")
	}
	m.last = begin
	if _, err := m.rate(5 << 20); err == nil {
		t.Error("no time is no error")
	}
	var w meter
	for range 3 {
		if n, err := w.Write(make([]byte, 10)); n != 10 || err != nil {
			t.Fatal(n, err)
		}
	}
	if w.head != 10 || w.bytes != 30 || w.last.Before(w.first) {
		t.Errorf("got %+v", w)
	}
}

func TestPSS(t *testing.T) {
	const kernel = "/var/lib/runv/vmlinux"
	const smaps = `00400000-00b00000 r-xp 00000000 fe:00 99 /usr/bin/runv
Rss:                8000 kB
Pss:                 100 kB
Pss_Dirty:             9 kB
c000000000-c000400000 rw-p 00000000 00:00 0
Pss:                  20 kB
VmFlags: rd wr mr mw me ac
7f0000000000-7f0001000000 rw-s 00000000 00:01 5 /memfd:runv-ram (deleted)
Pss:                 300 kB
7f0001000000-7f0002000000 rw-p 00000000 fe:00 7 /var/lib/runv/vmlinux
Pss:                  40 kB
7f0002000000-7f0002300000 rw-p 00000000 00:01 6 /memfd:initramfs (deleted)
Pss:                   5 kB
7f1000000000-7f1020000000 rw-s 00000000 00:01 8 /memfd:memory-backend-memfd (deleted)
Pss:                6000 kB
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0 [stack]
Pss:                   1 kB
`
	var got pss
	if err := got.read(strings.NewReader(smaps), kernel); err != nil {
		t.Fatal(err)
	}
	const kib = 1024
	if want := (pss{guest: 6340 * kib, initrd: 5 * kib, file: 100 * kib, other: 21 * kib}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got.beyond() != 126*kib || got.sum() != 6466*kib {
		t.Errorf("beyond %v, sum %v", got.beyond()/kib, got.sum()/kib)
	}
	if err := got.read(strings.NewReader("Pss: x kB\n"), kernel); err == nil {
		t.Error("a size that is no number is no error")
	}
}
