package conformance

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	tests := []struct {
		name   string
		output string
		status int
		want   report
		is     string
	}{
		{"all hold", "TAP version 13\nok 1 - a\nok 2 - b\n1..2\n", 0, report{planned: 2, passed: 2}, pass},
		{"one does not", "1..2\nok 1 - a\nnot ok 2 - b c\n", 0, report{planned: 2, passed: 1, failed: []string{"b c"}}, fail},
		{"gave up", "TAP version 13\n", 1, report{planned: -1}, fail},
		{"ended early", "1..3\nok 1 - a\n", 0, report{planned: 3, passed: 1}, fail},
		{"status", "ok 1 - a\n1..1\n", 1, report{planned: 1, passed: 1}, fail},
		{"nothing", "TAP version 13\n1..0\n", 0, report{planned: 0}, silent},
		{"nothing but an error", "TAP version 13\n  ---\n  {\n    \"error\": \"x\"\n  }\n  ...\n1..0\n", 0, report{planned: 0, errors: true}, fail},
		{"skipped", "1..1\nok 1 # SKIP no cgroups\n", 0, report{planned: 1, passed: 1}, pass},
		{"two plans", "ok 1 - a\n1..1\nTAP version 13\n1..0\n", 0, report{planned: 1, passed: 1}, pass},
		{"no description", "1..2\nok 1\nnot ok 2\n", 0, report{planned: 2, passed: 1, failed: []string{""}}, fail},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := parse(tt.output)
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(report{})); diff != "" {
				t.Errorf("parse (-want +got):\n%s", diff)
			}
			if is := got.outcome(tt.status); is != tt.is {
				t.Errorf("outcome: got %q, want %q", is, tt.is)
			}
		})
	}
}
