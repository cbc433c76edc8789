package main

import (
	"encoding/json"

	"github.com/urfave/cli/v2"

	"runv/libvm/state"
)

func (a *app) stateCommand() *cli.Command {
	return &cli.Command{
		Name:        "state",
		Usage:       "output the state of a container",
		ArgsUsage:   "<container-id>",
		Description: "Prints the state of a container as JSON (OCI runtime-spec \"State\").",
		Action: func(c *cli.Context) error {
			args, err := arguments(c, arity{1, 1})
			if err != nil {
				return err
			}
			s, err := a.runtime(c).State(args[0])
			if err != nil {
				return err
			}
			b, err := json.MarshalIndent(printed(s), "", "  ")
			if err != nil {
				return err
			}
			_, err = c.App.Writer.Write(b) // without a newline, as runc
			return err
		},
	}
}

// printed is what users see of a state: a stopped container has no process.
func printed(s state.State) state.Public {
	if s.Status == state.Stopped {
		s.PID = 0
	}
	return s.Public
}
