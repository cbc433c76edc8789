package main

import (
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"runv/libvm/check"
)

// errNoBackend ends check when no container could run here.
var errNoBackend = errors.New("no container can run on this host (the lines marked \"no\" say why)")

func (a *app) checkCommand() *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "show what works on this host, why the rest does not, and what to do",
		Action: func(c *cli.Context) error {
			if _, err := arguments(c, arity{0, 0}); err != nil {
				return err
			}
			results := a.runtime(c).Check(c.Context)
			w := tabwriter.NewWriter(c.App.Writer, 0, 8, 2, ' ', 0)
			for _, r := range results {
				fmt.Fprintf(w, "%s\t%s\t%s\n", r.Name, yesNo(r.OK), r.Detail)
				if !r.OK && r.Cure != "" {
					fmt.Fprintf(w, "\t\thint: %s\n", r.Cure)
				}
			}
			if err := w.Flush(); err != nil {
				return err
			}
			if !check.Works(results) {
				return errNoBackend
			}
			return nil
		},
	}
}

func yesNo(ok bool) string {
	if ok {
		return "yes"
	}
	return "no"
}
