package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"runv/libvm/state"
)

// errNoCheckpoint is why there is no checkpoint: the reason, and what to do.
var errNoCheckpoint = errors.New("a container cannot be checkpointed or restored: its processes are in a virtual machine, where criu on the host does not reach them " +
	"(keep what has to last on a volume, and stop and start the container)")

func (a *app) checkpointCommand() *cli.Command {
	return &cli.Command{
		Name:        "checkpoint",
		Usage:       "checkpoint a running container",
		ArgsUsage:   "<container-id>",
		Description: "Takes the arguments of runc's command and refuses:\n" + errNoCheckpoint.Error() + ".",
		Flags: append(criuFlags(),
			&cli.StringFlag{Name: "parent-path", Usage: "path of the previous images, of a pre-dump"},
			&cli.BoolFlag{Name: "leave-running", Usage: "leave the process running after checkpointing"},
			&cli.BoolFlag{Name: "tcp-skip-in-flight", Usage: "skip tcp connections that are being made"},
			&cli.BoolFlag{Name: "link-remap", Usage: "link unlinked files back where possible"},
			&cli.IntFlag{Name: "status-fd", Value: -1, Usage: "file descriptor to which \\0 is written once lazy-pages is ready"},
			&cli.StringFlag{Name: "page-server", Usage: "ADDRESS:PORT of the page server"},
			&cli.BoolFlag{Name: "pre-dump", Usage: "dump the memory only, and leave the container running"},
		),
		Action: func(c *cli.Context) error {
			args, err := arguments(c, arity{1, 1})
			if err != nil {
				return err
			}
			s, err := a.runtime(c).State(args[0])
			if err != nil {
				return err
			}
			if s.Status == state.Created || s.Status == state.Stopped {
				//lint:ignore ST1005 runc's words
				return fmt.Errorf("Container cannot be checkpointed in %s state", s.Status)
			}
			return errNoCheckpoint
		},
	}
}

// criuFlags are those of checkpoint and restore.
func criuFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "image-path", Usage: "path of criu's images"},
		&cli.StringFlag{Name: "work-path", Usage: "path for work files and logs"},
		&cli.BoolFlag{Name: "tcp-established", Usage: "allow open tcp connections"},
		&cli.BoolFlag{Name: "ext-unix-sk", Usage: "allow external unix sockets"},
		&cli.BoolFlag{Name: "shell-job", Usage: "allow shell jobs"},
		&cli.BoolFlag{Name: "lazy-pages", Usage: "restore memory pages lazily, by userfaultfd"},
		&cli.BoolFlag{Name: "file-locks", Usage: "handle file locks"},
		&cli.StringFlag{Name: "manage-cgroups-mode", Usage: "cgroups mode: soft|full|strict|ignore"},
		&cli.StringSliceFlag{Name: "empty-ns", Usage: "create a namespace without restoring its properties"},
		&cli.BoolFlag{Name: "auto-dedup", Usage: "deduplicate memory images"},
	}
}
