package monitor

import (
	"slices"
	"strings"

	"runv/libvm/vm"
)

// maxWords bounds the lines of a console that an error shows.
const maxWords = 12

// What a guest's last words begin with. The agent is a Go program, whose runtime
// says why it ends the process and then what each goroutine did; the kernel
// panics behind that, as the agent is its init.
var (
	lastWords   = []string{panics, "runv-agent: fatal"}
	runtimeSays = []string{"fatal error: ", "panic: ", "runtime: "} // at the begin of a line
)

// What a kernel's panic says.
const (
	panics    = "Kernel panic"
	initEnded = "Attempted to kill init!"
	trace     = "Call Trace:"
)

// explainConsole is the end of what a guest printed, for an error: all from its
// last words on, or its last lines if those are not among them.
func explainConsole(console []byte) string {
	lines := withoutTraces(strings.Split(strings.TrimSpace(vm.Printable(console)), "\n"))
	begin := max(0, len(lines)-maxWords)
	if i := slices.IndexFunc(lines[:begin], isLastWord); i >= 0 {
		begin = i
	}
	tail := strings.TrimSpace(strings.Join(lines[begin:min(begin+maxWords, len(lines))], " | "))
	switch {
	case tail == "":
		return " (its console is empty)"
	case strings.Contains(tail, initEnded):
		return "; its agent died; console: " + tail
	}
	return "; console: " + tail
}

// withoutTraces leaves out the stacks that Go's runtime and the kernel print
// behind their reasons: they are long, and say less.
func withoutTraces(lines []string) []string {
	panicked := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, panics) })
	if panicked < 0 {
		return lines
	}
	said, last := lines[:panicked], slices.Clone(lines[panicked:])
	if threw := slices.IndexFunc(said, isRuntimes); threw >= 0 {
		if i := slices.Index(said[threw:], ""); i >= 0 {
			said = said[:threw+i]
		}
		// The panic may have come into the middle of a line of the stack.
		last[0] = last[0][strings.Index(last[0], panics):]
	}
	if i := slices.IndexFunc(last, func(l string) bool { return strings.Contains(l, trace) }); i >= 0 {
		last = last[:i]
	}
	return slices.Concat(said, last)
}

func isLastWord(line string) bool {
	return isRuntimes(line) || slices.ContainsFunc(lastWords, func(w string) bool { return strings.Contains(line, w) })
}

func isRuntimes(line string) bool {
	return slices.ContainsFunc(runtimeSays, func(w string) bool { return strings.HasPrefix(line, w) })
}
