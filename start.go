package main

import "github.com/urfave/cli/v2"

func (a *app) startCommand() *cli.Command {
	return &cli.Command{
		Name:        "start",
		Usage:       "executes the user defined process in a created container",
		ArgsUsage:   "<container-id>",
		Description: "Runs the process of a container that \"runv create\" made.",
		Action: func(c *cli.Context) error {
			args, err := arguments(c, arity{1, 1})
			if err != nil {
				return err
			}
			return a.runtime(c).StartContainer(c.Context, args[0])
		},
	}
}
