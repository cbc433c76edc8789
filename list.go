package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"runv/libvm/state"
)

// errFormat is the answer to an unknown --format; the words are runc's.
var errFormat = errors.New("invalid format option")

func (a *app) listCommand() *cli.Command {
	return &cli.Command{
		Name:        "list",
		Usage:       "lists containers started by runv with the given root",
		Description: "Lists the containers below the directory of the global option --root.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Value: "table", Usage: "select one of: table or json"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "display only container IDs"},
		},
		Action: func(c *cli.Context) error {
			if _, err := arguments(c, arity{0, 0}); err != nil {
				return err
			}
			states, broken, err := a.runtime(c).List()
			if err != nil {
				return err
			}
			for _, err := range broken {
				fmt.Fprintln(c.App.ErrWriter, err) // as runc: not in the log
			}
			return printList(c, states)
		},
	}
}

func printList(c *cli.Context, states []state.State) error {
	w := c.App.Writer
	switch {
	case c.Bool("quiet"):
		for _, s := range states {
			if _, err := fmt.Fprintln(w, s.ID); err != nil {
				return err
			}
		}
		return nil
	case c.String("format") == "table":
		t := tabwriter.NewWriter(w, 12, 1, 3, ' ', 0)
		fmt.Fprint(t, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n") // Flush has the error
		for _, s := range states {
			p := printed(s)
			fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\n", p.ID, p.PID, p.Status, p.Bundle, p.Created.Format(time.RFC3339Nano), p.Owner)
		}
		return t.Flush()
	case c.String("format") == "json":
		var all []state.Public // null if there is none, as runc
		for _, s := range states {
			all = append(all, printed(s))
		}
		return json.NewEncoder(w).Encode(all)
	}
	return errFormat
}
