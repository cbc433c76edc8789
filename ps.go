package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"runv/libvm/ctl"
)

func (a *app) psCommand() *cli.Command {
	return &cli.Command{
		Name:        "ps",
		Usage:       "ps displays the processes running inside a container",
		ArgsUsage:   "<container-id>",
		Description: "The table has the processes in the guest, with the ids they have in the container.\nThe JSON form has the process that is the container to the host, as engines look\nthe ids up there.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Value: "table", Usage: "select one of: table or json"},
		},
		Action: func(c *cli.Context) error {
			// What follows the id are options of ps(1), not ours.
			args := c.Args().Slice()
			if len(args) < 1 {
				_, err := arguments(c, arity{1, -1})
				return err
			}
			pid, processes, err := a.runtime(c).Processes(c.Context, args[0])
			if err != nil {
				return err
			}
			switch c.String("format") {
			case "json":
				return json.NewEncoder(c.App.Writer).Encode([]int{pid})
			case "table":
				if len(args) > 1 {
					return errors.New("options of ps are not supported by runv: the processes are not the host's")
				}
				return printProcesses(c, processes)
			}
			return errFormat
		},
	}
}

func printProcesses(c *cli.Context, processes []ctl.Process) error {
	inside := make(map[int]int, len(processes)) // guest's id: container's id
	for _, p := range processes {
		inside[p.PID] = p.ContainerPID
	}
	t := tabwriter.NewWriter(c.App.Writer, 8, 1, 2, ' ', 0)
	fmt.Fprint(t, "UID\tPID\tPPID\tCMD\n") // Flush has the error
	for _, p := range processes {
		cmd := p.Args
		if cmd == "" {
			cmd = "[" + p.Comm + "]"
		}
		fmt.Fprintf(t, "%d\t%d\t%d\t%s\n", p.UID, p.ContainerPID, inside[p.PPID], cmd)
	}
	return t.Flush()
}
