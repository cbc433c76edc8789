package monitor

import (
	"fmt"
	"strings"
	"testing"
)

func TestExplainConsole(t *testing.T) {
	var many strings.Builder
	for i := range 40 {
		fmt.Fprintf(&many, "[    0.%06d] line %d\n", i, i)
	}
	const stack = "\ngoroutine 1 gp=0xc000 m=0 [running]:\nmain.serve()\n\t/agent/serve.go:42 +0x17\n\n" +
		"goroutine 7 [select]:\nmain.x()\n\t/a.go:1\n\n\n\ngoroutine 8 [select]:\nmain.y()\n\t/a.go:2\n\n\n"
	const died = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000200"
	const cpu = "[    0.8] CPU: 0 PID: 98 Comm: init"
	const trace = "\n[    0.9] Call Trace:\n[    0.9]  <TASK>\n[    0.9]  ? 0xffffffff8185aa3d\n"
	for _, tt := range []struct{ name, console, want string }{
		{"nothing", "", " (its console is empty)"},
		{"blank", " \r\n\n", " (its console is empty)"},
		{"what does not print", "a\x1b[2Jb\r\n", "; console: a?[2Jb"},
		{"no last words", many.String(), "; console: " + strings.TrimSuffix(lastLines(many.String(), maxWords), " | ")},
		{"the agent's own", "runv-agent: fatal: mount x\n" + many.String(),
			"; console: runv-agent: fatal: mount x | " + strings.Join(strings.Split(many.String(), "\n")[:maxWords-1], " | ")},
		{"what led to it stays", "VFS: no root\n[    0.8] Kernel panic - not syncing: VFS\n" + cpu + trace,
			"; console: VFS: no root | [    0.8] Kernel panic - not syncing: VFS | " + cpu},
		{"a panic long ago", many.String() + "[    0.8] Kernel panic - not syncing: x\n" + many.String(),
			"; console: [    0.8] Kernel panic - not syncing: x | " + strings.Join(strings.Split(many.String(), "\n")[:maxWords-1], " | ")},
		{"Go's runtime", many.String() + "fatal error: runtime: out of memory\n" + stack + "[    0.8] " + died + "\n" + cpu + trace,
			"; its agent died; console: " + lastLines(many.String(), maxWords-3) + "fatal error: runtime: out of memory | " + died + " | " + cpu},
		{"in the middle of a line", "panic: oh\n[signal SIGSEGV: segmentation violation]\n" + stack + "\t/x.go:1 +0x17 fp=0x24[    0.8] " + died + "\n" + cpu + trace,
			"; its agent died; console: panic: oh | [signal SIGSEGV: segmentation violation] | " + died + " | " + cpu},
		{"a signal", "[    0.8] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b",
			"; its agent died; console: [    0.8] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := explainConsole([]byte(tt.console)); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// lastLines is how the last n lines of a text begin an explanation.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[len(lines)-n:], " | ") + " | "
}
