package conformance

import (
	"regexp"
	"strconv"
	"strings"
)

// report is what a validation program printed: the Test Anything Protocol, on
// which runtimetest's, run inside the container, may be passed through.
type report struct {
	planned int      // assertions that it announced, of all its plans; -1: it did not say
	passed  int      // assertions that hold
	failed  []string // descriptions of those that do not
	errors  bool     // a diagnostic has an error, though maybe no assertion failed
}

var (
	planLine   = regexp.MustCompile(`^1\.\.(\d+)`)
	resultLine = regexp.MustCompile(`^(not )?ok\b(?: \d+)?(?: - )?(.*)$`)
	// skipLine is a directive: the assertion was not made.
	skipLine = regexp.MustCompile(`(?i)#\s*(skip|todo)\b`)
	// errorLine is a key of the diagnostics behind an assertion, or behind none.
	errorLine = regexp.MustCompile(`^\s+"error":`)
)

// parse reads a program's output.
func parse(output string) report {
	r := report{planned: -1}
	for line := range strings.Lines(output) {
		line = strings.TrimRight(line, "\r\n")
		if m := planLine.FindStringSubmatch(line); m != nil {
			if n, err := strconv.Atoi(m[1]); err == nil {
				r.planned = max(r.planned, 0) + n
			}
			continue
		}
		r.errors = r.errors || errorLine.MatchString(line)
		m := resultLine.FindStringSubmatch(line)
		switch {
		case m == nil:
		case m[1] == "":
			r.passed++
		case skipLine.MatchString(line):
		default:
			r.failed = append(r.failed, strings.TrimSpace(m[2]))
		}
	}
	return r
}

// The outcomes of a program.
const (
	pass   = "pass"   // it made assertions, all hold
	fail   = "fail"   // one does not, or the program gave up
	silent = "silent" // it made none, and named no error
)

// outcome judges a program by its report and exit status.
func (r report) outcome(status int) string {
	switch {
	case status != 0 || len(r.failed) > 0:
		return fail
	case r.passed == 0 && r.planned <= 0:
		if r.errors {
			return fail
		}
		return silent
	case r.planned >= 0 && r.passed != r.planned:
		return fail
	}
	return pass
}
