package kvm

import (
	"testing"
)

// countUp is a guest that counts in rax and stores it at 0x30000 for ever.
var countUp = code(print("!"), []byte{0x31, 0xc0}, setRBX(0x30000), []byte{0x48, 0xff, 0xc0, 0x48, 0x89, 0x03, 0xeb, 0xf8})

// TestStateGoesBack has a guest go on from a state that it had before.
func TestStateGoesBack(t *testing.T) {
	m := run(t, 2, countUp)
	console(t, m, "!")
	if _, err := m.State(); err == nil {
		t.Error("State of a running VM: no error")
	}
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	s, err := m.State()
	if err != nil {
		t.Fatal(err)
	}
	at := s.VCPUs[0].Regs
	if at.RBX != 0x30000 && at.RIP < payloadBase {
		t.Fatalf("registers: %+v", at)
	}
	if len(s.VCPUs[0].MSRs) == 0 || s.VCPUs[0].Sregs.EFER&eferLMA == 0 || s.VCPUs[1].MPState == s.VCPUs[0].MPState {
		t.Errorf("state: %d MSRs, EFER %#x, %v, %v", len(s.VCPUs[0].MSRs), s.VCPUs[0].Sregs.EFER, s.VCPUs[0].MPState, s.VCPUs[1].MPState)
	}
	changed := *s
	changed.VCPUs = append([]VCPUState(nil), s.VCPUs...)
	changed.VCPUs[0].Regs.RAX = 1 << 50
	changed.VCPUs[0].Regs.RBX = 0x30000
	changed.VCPUs[0].Regs.RIP = payloadBase + uint64(len(countUp)) - 8
	if err := m.SetState(&changed); err != nil {
		t.Fatal(err)
	}
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	again, err := m.State()
	if err != nil {
		t.Fatal(err)
	}
	if got := again.VCPUs[0].Regs.RAX; got < 1<<50 {
		t.Errorf("rax: got %#x, want at least %#x", got, uint64(1<<50))
	}
	if got, want := again.VCPUs[1].MPState, s.VCPUs[1].MPState; got != want {
		t.Errorf("second vcpu: got %v, want %v", got, want)
	}
	if again.Serial != s.Serial || again.CMOS != s.CMOS {
		t.Errorf("ports: got %+v %#x, want %+v %#x", again.Serial, again.CMOS, s.Serial, s.CMOS)
	}
	changed.VCPUs = changed.VCPUs[:1]
	if err := m.SetState(&changed); err == nil {
		t.Error("SetState of another shape: no error")
	}
	closes(t, m)
	if _, err := m.State(); err == nil {
		t.Error("State after the end: no error")
	}
}
