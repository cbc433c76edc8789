package main

import (
	"github.com/urfave/cli/v2"

	"runv/libvm"
)

func (a *app) startCommand() *cli.Command {
	return a.byID("start", "executes the user defined process in a created container",
		"Runs the process of a container that \"runv create\" made.", (*libvm.Runtime).StartContainer)
}
