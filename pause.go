package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"runv/libvm"
)

func (a *app) pauseCommand() *cli.Command {
	return a.byID("pause", "pause suspends all processes inside the container",
		"The processes are frozen in the guest, and then the virtual machine is stopped: a\npaused container uses no CPU time.", (*libvm.Runtime).Pause)
}

func (a *app) resumeCommand() *cli.Command {
	return a.byID("resume", "resumes all processes that have been previously paused",
		"Undoes \"runv pause\".", (*libvm.Runtime).Resume)
}

// byID is a command that takes a container's id and nothing else.
func (a *app) byID(name, usage, description string, do func(*libvm.Runtime, context.Context, string) error) *cli.Command {
	return &cli.Command{
		Name:        name,
		Usage:       usage,
		ArgsUsage:   "<container-id>",
		Description: description,
		Action: func(c *cli.Context) error {
			args, err := arguments(c, arity{1, 1})
			if err != nil {
				return err
			}
			return do(a.runtime(c), c.Context, args[0])
		},
	}
}
