package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

func (a *app) killCommand() *cli.Command {
	return &cli.Command{
		Name:        "kill",
		Usage:       "kill sends the specified signal (default: SIGTERM) to the container's init process",
		ArgsUsage:   "<container-id> [signal]",
		Description: "The signal is a number, or a name with or without SIG, as in:\n\n    # runv kill ubuntu01 KILL",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "send the specified signal to all processes inside the container"},
		},
		Action: func(c *cli.Context) error {
			args, err := arguments(c, arity{1, 2})
			if err != nil {
				return err
			}
			sig := int(unix.SIGTERM)
			if len(args) > 1 && args[1] != "" {
				if sig, err = parseSignal(args[1]); err != nil {
					return err
				}
			}
			return a.runtime(c).Kill(c.Context, args[0], sig, c.Bool("all"))
		},
	}
}

// parseSignal reads a signal's number, or its name with or without SIG.
func parseSignal(s string) (int, error) {
	if n, err := strconv.Atoi(s); err == nil {
		return n, nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return int(n), nil
	}
	return 0, fmt.Errorf("unknown signal %q", s)
}
