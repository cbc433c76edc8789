package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"runv/libvm"
)

func (a *app) runCommand() *cli.Command {
	return &cli.Command{
		Name:        "run",
		Usage:       "create and run a container",
		ArgsUsage:   "<container-id>",
		Description: "Creates the container of a bundle, runs its process, and exits with its status.\n\n" + bundleDescription,
		Flags: bundleFlags(
			&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "detach from the container's process"},
			&cli.BoolFlag{Name: "keep", Usage: "do not delete the container after it exits"},
			&cli.BoolFlag{Name: "no-subreaper", Usage: "disable the use of the subreaper used to reap reparented processes"},
		),
		Action: func(c *cli.Context) error {
			args, err := arguments(c, arity{1, 1})
			if err != nil {
				return err
			}
			o := libvm.RunOptions{Detach: c.Bool("detach"), Keep: c.Bool("keep"), NoSubreaper: c.Bool("no-subreaper")}
			o.CreateOptions, err = createOptions(c, args[0])
			if err == nil {
				a.status, err = a.runtime(c).Run(c.Context, o)
			}
			if err == nil {
				return nil
			}
			err = fmt.Errorf("runv run failed: %w", err)
			if a.status != 0 {
				return &statusCode{err, a.status} // the container was lost: killed
			}
			return err
		},
	}
}
