package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/cgroups"
	"github.com/urfave/cli/v2"

	"runv/libvm/bundle"
)

const specDescription = `The spec command creates the new specification file named "config.json" for
the bundle.

The spec generated is just a starter file. Editing of the spec is required to
achieve desired results. For example, the newly generated spec includes an args
parameter that is initially set to call the "sh" command when the container is
started. Calling "sh" may work for an ubuntu container or busybox, but will not
work for containers that do not include the "sh" program.

With --rootless the spec has a user namespace, for callers that are not root.`

func specCommand() *cli.Command {
	return &cli.Command{
		Name:        "spec",
		Usage:       "create a new specification file",
		Description: specDescription,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "bundle", Aliases: []string{"b"}, Usage: "path to the root of the bundle directory"},
			&cli.BoolFlag{Name: "rootless", Usage: "generate a configuration for a rootless container"},
		},
		Action: func(c *cli.Context) error {
			if _, err := arguments(c, arity{0, 0}); err != nil {
				return err
			}
			s := bundle.Example(cgroups.IsCgroup2UnifiedMode())
			if c.Bool("rootless") {
				bundle.Rootless(s, uint32(os.Geteuid()), uint32(os.Getegid()))
			}
			data, err := json.MarshalIndent(s, "", "\t")
			if err != nil {
				return err
			}
			return writeSpec(c.String("bundle"), data)
		},
	}
}

// writeSpec makes the config.json of a bundle. It never replaces one.
func writeSpec(dir string, data []byte) error {
	path := filepath.Join(dir, "config.json")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if errors.Is(err, fs.ErrExist) {
		//lint:ignore ST1005 runc's words
		return fmt.Errorf("File %s exists. Remove it first", filepath.Base(path))
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(path) //nolint:errcheck // the first error is the one to tell
	}
	return err
}
