package main

import (
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	all := []series{
		{"runv", "x", []float64{20, 10, 30}},
		{"bare", "x", []float64{10}},
		{"runc", "x", []float64{5, 5}},
		{"bare", "other", []float64{1}},
	}
	var tab table
	tab.compare("run", "ms", all, "x", map[string]float64{"bare": 1.5, "runc": 4})
	tab.value("size", "agent", "MB", 4.94, 8)
	var b strings.Builder
	if err := tab.print(&b); err != nil {
		t.Fatal(err)
	}
	want := [][]string{
		{"measurement", "what", "unit", "median", "min", "max", "n", "runv/this", "goal"},
		{"run", "runv", "ms", "20.0", "10.0", "30.0", "3", "-", "-"},
		{"run", "bare", "ms", "10.0", "10.0", "10.0", "1", "2.00", "<=1.5:MISSED"},
		{"run", "runc", "ms", "5.0", "5.0", "5.0", "2", "4.00", "<=4:met"},
		{"size", "agent", "MB", "4.9", "4.9", "4.9", "1", "-", "<=8:met"},
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != len(want) {
		t.Fatalf("got %d lines, want %d:\n%s", len(lines), len(want), b.String())
	}
	for i, line := range lines {
		if got := strings.Join(strings.Fields(line), " "); got != strings.Join(want[i], " ") {
			t.Errorf("line %d: got %q, want %q", i, got, want[i])
		}
	}
}
