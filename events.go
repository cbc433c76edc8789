package main

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/urfave/cli/v2"

	"runv/libvm/stats"
)

// eventInterval is how often events prints what a container uses, if not told.
const eventInterval = 5 * time.Second

func (a *app) eventsCommand() *cli.Command {
	return &cli.Command{
		Name:      "events",
		Usage:     "display container events such as OOM notifications, cpu, memory, and IO usage statistics",
		ArgsUsage: "<container-id>",
		Description: `Prints what the container uses in its virtual machine, each interval, and a line for each time that
the kernel killed processes of it for want of memory, until the container ends. Each is a line of
JSON, as runc prints it on a host with cgroup v2; network_interfaces are those of the container.`,
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "interval", Value: eventInterval, Usage: "set the stats collection interval"},
			&cli.BoolFlag{Name: "stats", Usage: "display the container's stats then exit"},
		},
		Action: func(c *cli.Context) error {
			args, err := arguments(c, arity{1, 1})
			if err != nil {
				return err
			}
			interval := c.Duration("interval")
			if interval <= 0 {
				return errors.New("duration interval must be greater than 0")
			}
			out := json.NewEncoder(c.App.Writer)
			if c.Bool("stats") {
				s, err := a.runtime(c).Stats(c.Context, args[0])
				if err != nil {
					return err
				}
				return out.Encode(stats.Event{Type: "stats", ID: args[0], Data: s})
			}
			return a.runtime(c).Events(c.Context, args[0], interval, func(e stats.Event) error { return out.Encode(e) })
		},
	}
}
