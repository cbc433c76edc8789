package bounded

import (
	"errors"
	"strings"
	"testing"
	"testing/iotest"
)

func TestRead(t *testing.T) {
	for _, tt := range []struct{ name, text, err string }{
		{"nothing", "", ""},
		{"all there may be", strings.Repeat("x", 8), ""},
		{"one more", strings.Repeat("x", 9), "it is larger than 8 bytes"},
		{"many more", strings.Repeat("x", 9000), "it is larger than 8 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Read(strings.NewReader(tt.text), "it", 8)
			if tt.err == "" && (err != nil || string(got) != tt.text) {
				t.Errorf("got %q, %v", got, err)
			}
			if tt.err != "" && (err == nil || err.Error() != tt.err || got != nil) {
				t.Errorf("got %q, %v, want %q", got, err, tt.err)
			}
		})
	}
	broken := errors.New("broken")
	if _, err := Read(iotest.ErrReader(broken), "it", 8); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}
