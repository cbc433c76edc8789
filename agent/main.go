// The agent is PID 1 of the guest: it mounts what the guest needs, serves the
// host over vsock (agent/api), and runs containers. Started under the name
// setup.Argv0 it is the first process of a container instead.
package main

import (
	"os"
	"runtime"
	"runtime/debug"

	"runv/agent/setup"
)

// The main goroutine stays on the main thread, so that no goroutine that leaves
// its thread behind in a container's namespaces leaves that one: /proc/1 of the
// guest is the view of the main thread.
func init() { runtime.LockOSThread() }

// Limits of the Go heap. The agent's live data is some hundred kilobytes, and
// its garbage is small: a heap of a few megabytes before the first collection
// keeps the collector out of the boot, and the ceiling holds it back later.
const (
	gcPercent   = 200
	memoryLimit = 8 << 20 // bytes
)

func main() {
	if len(os.Args) > 0 && os.Args[0] == setup.Argv0 {
		os.Exit(setup.Main())
	}
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(memoryLimit)
	if os.Getpid() != 1 {
		os.Stderr.WriteString("runv-agent: this program is the init of a runv guest\n")
		os.Exit(1)
	}
	if err := run(); err != nil {
		fatal(err)
	}
	powerOff()
}
