package monitor

import (
	"slices"
	"testing"
)

func TestEnvironment(t *testing.T) {
	for _, tt := range []struct {
		name      string
		env, want []string
	}{
		{"none", nil, []string{"GODEBUG=disablethp=1"}},
		{"others stay", []string{"PATH=/bin", "A="}, []string{"PATH=/bin", "A=", "GODEBUG=disablethp=1"}},
		{"settings stay", []string{"GODEBUG=gctrace=1", "B=1"}, []string{"B=1", "GODEBUG=gctrace=1,disablethp=1"}},
		{"an empty one", []string{"GODEBUG=", "B=1"}, []string{"B=1", "GODEBUG=disablethp=1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := environment(tt.env); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
