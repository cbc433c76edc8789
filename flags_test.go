package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"runv/libvm/bundle"
)

// described is the program as its documents describe it.
func described(t *testing.T) *cli.App {
	t.Helper()
	t.Setenv("XDG_RUNTIME_DIR", "")
	c := newApp().cli()
	slices.SortFunc(c.Commands, func(a, b *cli.Command) int { return strings.Compare(a.Name, b.Name) })
	return c
}

// takes says what stands behind a flag: nothing, a value, or one of several.
func takes(f cli.Flag) string {
	switch f.(type) {
	case *cli.BoolFlag:
		return ""
	case *cli.StringSliceFlag, *cli.Int64SliceFlag, *cli.IntSliceFlag:
		return "values"
	}
	return "value"
}

// flagLine is a flag as testdata/runc-flags.txt has it.
func flagLine(command string, f cli.Flag) string {
	words := []string{command}
	for _, n := range f.Names() {
		words = append(words, dashed(n))
	}
	return strings.TrimSpace(strings.Join(append(words, takes(f)), " "))
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// documented calls f for each command ("runv" for the program itself) and each
// flag of it; of a command itself the flag is nil.
func documented(app *cli.App, f func(command string, flag cli.Flag)) {
	for _, flag := range append(slices.Clone(app.Flags), cli.VersionFlag) {
		f("runv", flag)
	}
	for _, c := range app.Commands {
		f(c.Name, nil)
		for _, flag := range c.Flags {
			f(c.Name, flag)
		}
	}
}

// runcFlags are the commands and flags of runc 1.3 and 1.4, a line each: command,
// flag, other names, and what it takes.
func runcFlags(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile("testdata/runc-flags.txt")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
}

// TestRuncFlags: what runc 1.3 and 1.4 take, we take.
func TestRuncFlags(t *testing.T) {
	var ours []string
	documented(described(t), func(command string, f cli.Flag) {
		if f == nil {
			ours = append(ours, command)
		} else {
			ours = append(ours, flagLine(command, f))
		}
	})
	for _, line := range runcFlags(t) {
		if !slices.Contains(ours, line) {
			t.Errorf("runc has %q, which we do not", line)
		}
	}
}

// TestFlagNotes: a note is of something that exists, and has a reason; what it
// calls refused is refused.
func TestFlagNotes(t *testing.T) {
	known := map[string]bool{}
	documented(described(t), func(command string, f cli.Flag) {
		if f == nil {
			known[command] = true
			return
		}
		name := command + " --" + f.Names()[0]
		known[name] = true
		note := flagNotes()[name]
		if note.status != bundle.Refused || note.field != "" {
			return
		}
		args := []string{"runv", "--root", t.TempDir(), command, "--" + f.Names()[0]}
		if takes(f) != "" {
			args = append(args, "1")
		}
		if err := newApp().cli().Run(append(args, "c1")); err == nil || !strings.Contains(err.Error(), note.reason) {
			t.Errorf("%s: got %v, want %q", name, err, note.reason)
		}
	})
	for name, note := range flagNotes() {
		if !known[name] || note.reason == "" || note.status == bundle.Supported && note.field == "" {
			t.Errorf("note on %q: %+v, exists %v", name, note, known[name])
		}
	}
}

// TestFlagDocs holds docs/flags.md.
func TestFlagDocs(t *testing.T) {
	current(t, "docs/flags.md", []byte(flagDocs(t)))
}

func flagDocs(t *testing.T) string {
	var b strings.Builder
	b.WriteString(`# Commands and flags

Every command and flag of runc 1.3 and 1.4, and what runv does with it. Made from the definitions of the commands by
` + "`make generate`" + `; do not edit.

- supported: does what it does in runc;
- refused: an error that gives the reason;
- ignored: changes nothing, for the reason given;
- runv's own: runc does not have it.

| command | flag | | |
| --- | --- | --- | --- |
`)
	runc, app := runcFlags(t), described(t)
	escape := strings.NewReplacer("|", `\|`, "<", `\<`)
	documented(app, func(command string, f cli.Flag) {
		key, flag, line, text := command, "", command, ""
		if f == nil {
			text = app.Command(command).Usage
		} else {
			if command != "runv" && f.Names()[0] == "help" {
				return // they all have it
			}
			key += " --" + f.Names()[0]
			line = flagLine(command, f)
			_, flag, _ = strings.Cut(line, " ")
			flag = "`" + flag + "`"
			text = f.(cli.DocGenerationFlag).GetUsage()
		}
		note, noted := flagNotes()[key]
		if whole, ok := flagNotes()[command]; ok && f != nil {
			note, noted = flagNote{status: whole.status, reason: "as the command"}, true
		}
		status := string(bundle.Supported)
		switch {
		case noted:
			status, text = string(note.status), note.reason
		case !slices.Contains(runc, line) && command != "runv" && !slices.Contains(runc, command):
			status = "runv's own"
		case !slices.Contains(runc, line) && f != nil && !slices.Contains(f.Names(), "help"):
			status = "runv's own"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", command, flag, status, escape.Replace(text))
	})
	return b.String()
}
