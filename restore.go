package main

import "github.com/urfave/cli/v2"

func (a *app) restoreCommand() *cli.Command {
	return &cli.Command{
		Name:        "restore",
		Usage:       "restore a container from a previous checkpoint",
		ArgsUsage:   "<container-id>",
		Description: "Takes the arguments of runc's command and refuses:\n" + errNoCheckpoint.Error() + ".",
		Flags: append(criuFlags(),
			&cli.StringFlag{Name: "bundle", Aliases: []string{"b"}, Usage: "path to the root of the bundle directory"},
			&cli.StringFlag{Name: "console-socket", Usage: "path to an AF_UNIX socket which will receive the master end of the console's pseudoterminal"},
			&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "detach from the container's process"},
			&cli.StringFlag{Name: "pid-file", Usage: "specify the file to write the process id to"},
			&cli.BoolFlag{Name: "no-subreaper", Usage: "do not reap reparented processes"},
			&cli.BoolFlag{Name: "no-pivot", Usage: "do not use pivot_root"},
			&cli.StringFlag{Name: "lsm-profile", Usage: "LSM profile to be used, as TYPE:NAME"},
			&cli.StringFlag{Name: "lsm-mount-context", Usage: "LSM mount context to be used"},
		),
		Action: func(c *cli.Context) error {
			if _, err := arguments(c, arity{1, 1}); err != nil {
				return err
			}
			return errNoCheckpoint
		},
	}
}
