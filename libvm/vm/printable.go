package vm

import (
	"strings"
	"unicode"
)

// Printable is text from a guest as it may be shown: a terminal must not be told
// what to do, nor a log get lines that are not ours. Newlines and tabs stay,
// carriage returns go, the rest of what does not print becomes "?".
func Printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == '\r':
			return -1
		case r == unicode.ReplacementChar || !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, string(b))
}
