package main

import "github.com/urfave/cli/v2"

func (a *app) deleteCommand() *cli.Command {
	return &cli.Command{
		Name:        "delete",
		Usage:       "delete any resources held by the container often used with detached container",
		ArgsUsage:   "<container-id>",
		Description: "Removes a container that has stopped, or that was never started.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "Forcibly deletes the container if it is still running (uses SIGKILL)"},
		},
		Action: func(c *cli.Context) error {
			args, err := arguments(c, arity{1, 1})
			if err != nil {
				return err
			}
			return a.runtime(c).Delete(c.Context, args[0], c.Bool("force"))
		},
	}
}
