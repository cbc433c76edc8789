package integration

import (
	"os"
	"strings"
	"testing"
	"time"

	"runv/tests/harness"
)

// output is a pipe for a command's stdout, read line by line with deadlines.
type output struct {
	t    *testing.T
	r, w *os.File
	got  string // read and not yet expected
}

func newOutput(t *testing.T) *output {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close() //nolint:errcheck // a pipe
		w.Close() //nolint:errcheck // it may be closed
	})
	return &output{t: t, r: r, w: w}
}

// expect waits for text and returns what stood up to its end.
func (o *output) expect(text string) string {
	o.t.Helper()
	if err := o.r.SetReadDeadline(time.Now().Add(harness.Limit)); err != nil {
		o.t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for {
		if i := strings.Index(o.got, text); i >= 0 {
			before := o.got[:i+len(text)]
			o.got = o.got[i+len(text):]
			return before
		}
		n, err := o.r.Read(buf)
		if err != nil {
			o.t.Fatalf("waiting for %q: %v; got %q", text, err, o.got)
		}
		o.got += string(buf[:n])
	}
}
