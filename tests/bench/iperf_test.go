package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestCPUWatch: output in any pieces; a test that was begun again counts from there.
func TestCPUWatch(t *testing.T) {
	const out = "booting\r\nbegin a\r\nbegin a\r\nmoved a 200000000\r\nstep a 5\r\nbegin b\r\nmoved b 50000000\nwork: done\n"
	for size := 1; size < 30; size += 7 {
		clock := time.Duration(0)
		w := &cpuWatch{used: func() (time.Duration, error) {
			clock += time.Second
			return clock, nil
		}}
		for piece := range slices.Chunk([]byte(out), size) {
			if n, err := w.Write(piece); n != len(piece) || err != nil {
				t.Fatal(n, err)
			}
		}
		if want := []reading{{"a:cpu", 500}, {"b:cpu", 2000}}; w.err != nil || !slices.Equal(w.took, want) {
			t.Errorf("pieces of %d: %v, %v, want %v", size, w.took, w.err, want)
		}
	}
	w := &cpuWatch{used: func() (time.Duration, error) { return 0, nil }}
	w.Write([]byte("begin a\nmoved a 0\n")) //nolint:errcheck // never fails
	if w.err == nil {
		t.Error("nothing was moved: no error")
	}
}

func TestProgramFiles(t *testing.T) {
	files, err := programFiles(t.Context(), "/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, f := range files {
		paths = append(paths, f.Path)
		if len(f.Data) == 0 {
			t.Errorf("%s is empty", f.Path)
		}
	}
	all := strings.Join(paths, " ")
	if paths[0] != "/bin/sh" || !strings.Contains(all, "/libc.so") || !strings.Contains(all, "/ld-linux") || strings.Contains(all, "vdso") {
		t.Errorf("got %s", all)
	}
	if _, err := programFiles(t.Context(), "/no/such"); err == nil {
		t.Error("no error for a program that is not there")
	}
}
