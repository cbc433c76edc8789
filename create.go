package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"runv/libvm"
)

const bundleDescription = `The bundle is a directory with a specification file named "config.json" and a
root filesystem. The args of the specification say what is run; see "runv spec".`

// bundleFlags are those of create and run.
func bundleFlags(more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "bundle", Aliases: []string{"b"}, Usage: "path to the root of the bundle directory, defaults to the current directory"},
		&cli.StringFlag{Name: "console-socket", Usage: "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's pseudoterminal"},
		&cli.StringFlag{Name: "pidfd-socket", Usage: "path to an AF_UNIX socket which will receive a file descriptor referencing the container's process on the host"},
		&cli.StringFlag{Name: "pid-file", Usage: "specify the file to write the process id to"},
		&cli.BoolFlag{Name: "no-pivot", Usage: "accepted for runc's sake: the guest always pivots"},
		&cli.BoolFlag{Name: "no-new-keyring", Usage: "do not create a new session keyring for the container"},
		&cli.IntFlag{Name: "preserve-fds", Usage: "pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total): pipes, connected stream sockets, files to read or to write"},
	}, more...)
}

func (a *app) createCommand() *cli.Command {
	return &cli.Command{
		Name:        "create",
		Usage:       "create a container",
		ArgsUsage:   "<container-id>",
		Description: "Creates the container of a bundle; \"runv start\" then runs its process.\n\n" + bundleDescription,
		Flags:       bundleFlags(),
		Action: func(c *cli.Context) error {
			args, err := arguments(c, arity{1, 1})
			if err != nil {
				return err
			}
			o, err := createOptions(c, args[0])
			if err == nil {
				err = a.runtime(c).Create(c.Context, o)
			}
			if err != nil {
				return fmt.Errorf("runv create failed: %w", err)
			}
			return nil
		},
	}
}

func createOptions(c *cli.Context, id string) (libvm.CreateOptions, error) {
	return libvm.CreateOptions{
		ID:            id,
		Bundle:        c.String("bundle"),
		PidFile:       c.String("pid-file"),
		ConsoleSocket: c.String("console-socket"),
		NoPivot:       c.Bool("no-pivot"),
		NoNewKeyring:  c.Bool("no-new-keyring"),
		PidfdSocket:   c.String("pidfd-socket"),
		PreserveFDs:   c.Int("preserve-fds"),
	}, checkCgroupFlags(c)
}
