// Command runv is an OCI runtime that runs each container in a virtual machine
// of its own. Its commands, flags and words are runc's.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"runv/libvm"
	"runv/libvm/inherit"
	"runv/libvm/monitor"
)

func main() {
	if len(os.Args) > 1 {
		// Before anything is set up that only commands need.
		switch os.Args[1] {
		case monitor.Command:
			os.Exit(monitor.Main())
		case monitor.StandInCommand:
			os.Exit(monitor.StandInMain())
		case libvm.ProxyCommand:
			os.Exit(proxyMain(os.Args[2:]))
		}
	}
	os.Exit(runMain(os.Args))
}

// proxyMain is the stand-in of a detached exec. Its stderr is /dev/null when an
// exec started it, and a user's otherwise.
func proxyMain(args []string) int {
	status, err := libvm.Proxy(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "runv:", err)
		return 1
	}
	return status
}

// runMain runs a command and returns the exit status.
func runMain(args []string) int {
	inherited := inherit.Open()
	// Callers leak files to us (containerd's shim, buildah); what we start
	// and leave behind must not hold them open.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		fmt.Fprintln(os.Stderr, "runv: close_range:", err)
		return 1
	}
	a := newApp()
	a.inherited = inherited
	err := a.cli().Run(args)
	if err == nil || errors.Is(err, errHelp) {
		return a.status
	}
	a.log.Fatal(err)
	return exitStatus(err)
}

// Exit statuses, as runc's.
const (
	statusError      = 1
	statusNoCommand  = 3   // an unknown command
	statusExecFailed = 255 // exec of what cannot be executed, or any other error of exec
)

// statusCode is an error with an exit status of its own.
type statusCode struct {
	error
	code int
}

func (s *statusCode) Unwrap() error { return s.error }

func exitStatus(err error) int {
	if i := (*libvm.Interrupted)(nil); errors.As(err, &i) {
		return 128 + int(i.Signal)
	}
	if s := (*statusCode)(nil); errors.As(err, &s) {
		return s.code
	}
	// Help on what is not there. Not errors.As: a hook's *exec.ExitError has the method, too.
	if c, ok := err.(cli.ExitCoder); ok { //nolint:errorlint // as said
		return c.ExitCode()
	}
	return statusError
}

// unknownCommand is the action when no command was found. Engines call those of
// runc, and show their users what is said.
func unknownCommand(c *cli.Context) error {
	name := c.Args().First()
	if name == "" {
		return cli.ShowAppHelp(c)
	}
	return &statusCode{fmt.Errorf("No help topic for '%s' (see: runv help)", name), statusNoCommand} //lint:ignore ST1005 runc's words
}
