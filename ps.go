package main

import (
	"encoding/json"
	"time"

	"github.com/urfave/cli/v2"

	"runv/libvm/pstable"
)

func (a *app) psCommand() *cli.Command {
	return &cli.Command{
		Name:        "ps",
		Usage:       "ps displays the processes running inside a container",
		ArgsUsage:   "<container-id> [ps options]",
		Description: "The table has the processes in the guest, with the ids they have in the container.\nOf the options of ps(1) there are " + pstable.Options + ".\nThe JSON form has the process that is the container to the host, as engines look\nthe ids up there.",
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
				var pids []int // null if there is none, as runc
				if pid != 0 {
					pids = append(pids, pid)
				}
				return json.NewEncoder(c.App.Writer).Encode(pids)
			case "table":
				table, err := pstable.Parse(args[1:])
				if err != nil {
					return err
				}
				return table.Write(c.App.Writer, processes, time.Now())
			}
			return errFormat
		},
	}
}
