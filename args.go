package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
)

// How many arguments a command takes.
type arity struct {
	min, max int // max < 0: any number
}

// arguments returns a command's arguments, or runc's error if their number is
// wrong. As with runc, flags may also stand behind the first argument; errHelp if
// that of the help is among them, which is shown then.
func arguments(c *cli.Context, want arity) ([]string, error) {
	args, err := trailingFlags(c)
	if err != nil {
		return nil, usageError(c, err, true)
	}
	if c.Bool("help") { // it may have been behind the arguments
		return nil, showHelp(c)
	}
	switch n := len(args); {
	case want.min == want.max && n != want.min:
		err = fmt.Errorf("runv: %q requires exactly %d argument(s)", c.Command.Name, want.min)
	case n < want.min:
		err = fmt.Errorf("runv: %q requires a minimum of %d argument(s)", c.Command.Name, want.min)
	case want.max >= 0 && n > want.max:
		err = fmt.Errorf("runv: %q requires a maximum of %d argument(s)", c.Command.Name, want.max)
	}
	if err != nil {
		showUsage(c, "Incorrect Usage.", true)
		return nil, err
	}
	return args, nil
}

// trailingFlags applies the flags behind the first argument and returns what is
// left. Negative numbers are arguments.
func trailingFlags(c *cli.Context) ([]string, error) {
	var args []string
	for rest := c.Args().Slice(); len(rest) > 0; {
		word := rest[0]
		rest = rest[1:]
		if word == "--" {
			return append(args, rest...), nil
		}
		if _, err := strconv.Atoi(word); err == nil || len(word) < 2 || word[0] != '-' {
			args = append(args, word)
			continue
		}
		name, value, given := strings.Cut(strings.TrimPrefix(word[1:], "-"), "=")
		i := slices.IndexFunc(c.Command.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
		if i < 0 {
			return nil, fmt.Errorf("flag provided but not defined: -%s", name)
		}
		if _, isBool := c.Command.Flags[i].(*cli.BoolFlag); !given && isBool {
			value = "true"
		} else if !given {
			if len(rest) == 0 {
				return nil, fmt.Errorf("flag needs an argument: -%s", name)
			}
			value, rest = rest[0], rest[1:]
		}
		if err := c.Set(name, value); err != nil {
			return nil, fmt.Errorf("invalid value %q for flag -%s: %w", value, name, err)
		}
	}
	return args, nil
}

// usageError shows how a command is used, on stderr: stdout is for data.
func usageError(c *cli.Context, err error, isCommand bool) error {
	showUsage(c, "Incorrect Usage: "+err.Error(), isCommand)
	return err
}

func showUsage(c *cli.Context, headline string, isCommand bool) {
	w := c.App.ErrWriter
	fmt.Fprintf(w, "%s\n\n", headline)
	c.App.Writer = w // this is the program's last word
	if isCommand && c.Command != nil && c.Command.Name != "" {
		_ = cli.ShowCommandHelp(c, c.Command.Name) // stderr is where the error would go
		return
	}
	_ = cli.ShowAppHelp(c)
}
