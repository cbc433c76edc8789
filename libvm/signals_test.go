package libvm

import (
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDeliver(t *testing.T) {
	for _, tt := range []struct {
		name         string
		queued, want []os.Signal
	}{
		{"empty", nil, []os.Signal{unix.SIGTERM}},
		{"behind others", []os.Signal{unix.SIGURG, unix.SIGCHLD}, []os.Signal{unix.SIGURG, unix.SIGCHLD, unix.SIGTERM}},
		{"there already", []os.Signal{unix.SIGURG, unix.SIGTERM, unix.SIGHUP}, []os.Signal{unix.SIGURG, unix.SIGTERM, unix.SIGHUP}},
	} {
		queue := make(chan os.Signal, 8)
		for _, s := range tt.queued {
			queue <- s
		}
		deliver(queue, unix.SIGTERM)
		var got []os.Signal
		for len(queue) > 0 {
			got = append(got, <-queue)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}
