package vm

import "testing"

func TestPrintable(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"text", "Linux 6.1\r\n\tpanic: é", "Linux 6.1\n\tpanic: é"},
		{"escape sequence", "\x1b]0;owned\x07x", "?]0;owned?x"},
		{"other controls", "a\x00b\x7fc\u202e", "a?b?c?"},
		{"no utf-8", "a\xff\xfeb", "a??b"},
	} {
		if got := Printable([]byte(tt.in)); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
