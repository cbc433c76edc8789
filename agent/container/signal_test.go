package container

import "testing"

func TestSleepOf(t *testing.T) {
	const switches = "voluntary_ctxt_switches:\t3\nnonvoluntary_ctxt_switches:\t1\n"
	if got, want := sleepOf("State:\tS (sleeping)\n"+switches), (sleep{true, "\t3\t1"}); got != want {
		t.Errorf("asleep: got %+v, want %+v", got, want)
	}
	if got := sleepOf("State:\tR (running)\n" + switches); got.sleeping {
		t.Errorf("running: got %+v", got)
	}
}
