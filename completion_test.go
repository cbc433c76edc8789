package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// TestCompletions holds the completions for shells, which are made of the
// commands' definitions.
func TestCompletions(t *testing.T) {
	app := described(t)
	for name, text := range map[string]string{
		"completions/bash/runv": bashCompletion(app), "completions/zsh/_runv": zshCompletion(app), "completions/fish/runv.fish": fishCompletion(app),
	} {
		current(t, name, []byte(text))
	}
	for shell, file := range map[string]string{"bash": "bash/runv", "zsh": "zsh/_runv", "fish": "fish/runv.fish"} {
		t.Run(shell, func(t *testing.T) {
			if _, err := exec.LookPath(shell); err != nil {
				t.Skipf("no %s (try: apt-get install %s)", shell, shell)
			}
			if out, err := exec.Command(shell, "-n", "completions/"+file).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// TestBashCompletes asks the shell itself.
func TestBashCompletes(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("no bash")
	}
	dir := t.TempDir()
	// What lists the containers.
	fake := "#!/bin/sh\n[ \"$*\" = 'list --quiet' ] && echo web && echo db\n[ \"$*\" = '--root /r list --quiet' ] && echo other\n"
	if err := os.WriteFile(filepath.Join(dir, "runv"), []byte(fake), 0o755); err != nil {
		t.Fatal(err)
	}
	for words, want := range map[string]string{
		"runv st":              "start state",
		"runv --sys":           "--systemd-cgroup",
		"runv exec --pid":      "--pid-file --pidfd-socket",
		"runv exec ":           "db web",
		"runv exec -u 1 w":     "web",
		"runv --root /r kill ": "other",
		"runv kill web ":       "",
		"runv list --format ":  "json table",
		"runv --log-format j":  "json",
		"runv create ":         "",
		"runv delete --f":      "--force",
		"runv --root ":         "", // the shell's own, for files
	} {
		quoted := "'" + strings.Join(strings.Split(words, " "), "' '") + "'"
		script := fmt.Sprintf("source completions/bash/runv; COMP_WORDS=(%s); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _runv; printf '%%s\\n' \"${COMPREPLY[@]}\"", quoted)
		cmd := exec.Command("bash", "-c", script)
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		got := strings.Fields(string(out))
		slices.Sort(got)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: got %q, %v, want %q", words, got, err, want)
		}
	}
}

// flagWords are the names of flags, with dashes; only those with a value if asked.
func flagWords(flags []cli.Flag, valued bool) []string {
	var out []string
	for _, f := range flags {
		if valued && takes(f) == "" {
			continue
		}
		for _, n := range f.Names() {
			out = append(out, dashed(n))
		}
	}
	return out
}

// choices are the values that a flag takes, if they are few.
func choices(command string, f cli.Flag) []string {
	switch name := f.Names()[0]; {
	case name == "format" && command != "":
		return []string{"table", "json"}
	case name == "log-format":
		return []string{"text", "json"}
	case name == "rootless" && command == "":
		return []string{"true", "false", "auto"}
	case name == "backend":
		return []string{"auto", "kvm", "qemu"}
	}
	return nil
}

// takesID says whether a command's first argument is a container that exists.
func takesID(c *cli.Command) bool {
	return strings.HasPrefix(c.ArgsUsage, "<container-id>") && !slices.Contains([]string{"create", "run", "restore"}, c.Name)
}

const completionHead = "# Completion for runv. Made from the definitions of the commands by \"make generate\"; do not edit.\n"

func bashCompletion(app *cli.App) string {
	var b strings.Builder
	b.WriteString(completionHead)
	globals := append(slices.Clone(app.Flags), cli.VersionFlag)
	var names []string
	for _, c := range app.Commands {
		names = append(names, c.Name)
	}
	fmt.Fprintf(&b, `
_runv() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	local command= ids= words= valued i args=0 root=()
	local global_valued=" %s "
	COMPREPLY=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		local word=${COMP_WORDS[i]}
		if [[ -z $command && $word == --root ]]; then
			root=(--root "${COMP_WORDS[i + 1]}")
		fi
		if [[ $word == -* ]]; then
			[[ -z $command && $global_valued == *" $word "* || -n $command && $valued == *" $word "* ]] && ((i++))
		elif [[ -n $command ]]; then
			((args++))
		else
			command=$word
			case $command in
`, strings.Join(flagWords(globals, true), " "))
	for _, c := range app.Commands {
		ids := ""
		if takesID(c) {
			ids = "1"
		}
		fmt.Fprintf(&b, "\t\t\t%s) ids=%s valued=\" %s \" words=\"%s\" ;;\n", c.Name, ids,
			strings.Join(flagWords(c.Flags, true), " "), strings.Join(flagWords(c.Flags, false), " "))
	}
	fmt.Fprintf(&b, `			esac
		fi
	done
	if [[ -z $command ]]; then
		valued=$global_valued words="%s"
		[[ $cur != -* ]] && words="%s"
	fi
	if [[ $valued == *" $prev "* ]]; then
		case "$command $prev" in
`, strings.Join(flagWords(globals, false), " "), strings.Join(names, " "))
	of := func(command string, flags []cli.Flag) {
		for _, f := range flags {
			if c := choices(command, f); c != nil {
				for _, n := range f.Names() {
					fmt.Fprintf(&b, "\t\t\"%s %s\") COMPREPLY=($(compgen -W \"%s\" -- \"$cur\")) ;;\n", command, dashed(n), strings.Join(c, " "))
				}
			}
		}
	}
	of("", app.Flags)
	for _, c := range app.Commands {
		of(c.Name, c.Flags)
	}
	b.WriteString(`		esac
		return # the rest is for the shell: files
	fi
	if [[ $args -gt 0 && $command == exec ]]; then
		return # a command of the container's
	fi
	if [[ -n $command && $cur != -* ]]; then
		words=
		[[ -n $ids && $args -eq 0 ]] && words=$(runv "${root[@]}" list --quiet 2>/dev/null)
	fi
	COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o default -F _runv runv
`)
	return b.String()
}

// zshText is text for _arguments in single quotes.
func zshText(s string) string {
	return strings.NewReplacer("'", `'\''`, "[", `\[`, "]", `\]`, ":", `\:`).Replace(s)
}

func zshCompletion(app *cli.App) string {
	var b strings.Builder
	b.WriteString("#compdef runv\n" + completionHead)
	b.WriteString("\n_runv_containers() {\n\tlocal -a ids root\n\t(( ${+opt_args[--root]} )) && root=(--root ${opt_args[--root]})\n\tids=(${(f)\"$(runv $root list --quiet 2>/dev/null)\"})\n\tcompadd -a ids\n}\n\n")
	spec := func(indent, command string, flags []cli.Flag) {
		for _, f := range flags {
			value := ""
			if c := choices(command, f); c != nil {
				value = ":value:(" + strings.Join(c, " ") + ")"
			} else if takes(f) != "" {
				value = ":value:_files"
			}
			many := ""
			if takes(f) == "values" {
				many = "*"
			}
			for _, n := range f.Names() {
				fmt.Fprintf(&b, "%s'%s%s[%s]%s' \\\n", indent, many, dashed(n), zshText(f.(cli.DocGenerationFlag).GetUsage()), value)
			}
		}
	}
	b.WriteString("_runv() {\n\tlocal context state line curcontext=$curcontext\n\tlocal -A opt_args\n\t_arguments -C \\\n")
	spec("\t\t", "", append(slices.Clone(app.Flags), cli.VersionFlag))
	b.WriteString("\t\t'1:command:->command' '*::arguments:->arguments'\n\tcase $state in\n\tcommand)\n\t\tlocal -a commands=(\n")
	for _, c := range app.Commands {
		fmt.Fprintf(&b, "\t\t\t'%s:%s'\n", c.Name, strings.ReplaceAll(c.Usage, "'", `'\''`))
	}
	b.WriteString("\t\t)\n\t\t_describe command commands\n\t\t;;\n\targuments)\n\t\tcase $line[1] in\n")
	for _, c := range app.Commands {
		fmt.Fprintf(&b, "\t\t%s)\n\t\t\t_arguments \\\n", c.Name)
		spec("\t\t\t\t", c.Name, c.Flags)
		first := "'1: :'"
		if takesID(c) {
			first = "'1:container:_runv_containers'"
		}
		fmt.Fprintf(&b, "\t\t\t\t%s '*: :'\n\t\t\t;;\n", first)
	}
	b.WriteString("\t\tesac\n\tesac\n}\n\n_runv \"$@\"\n")
	return b.String()
}

func fishCompletion(app *cli.App) string {
	var b strings.Builder
	b.WriteString(completionHead)
	quote := func(s string) string {
		return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
	}
	var ids []string
	for _, c := range app.Commands {
		if takesID(c) {
			ids = append(ids, c.Name)
		}
	}
	line := func(condition, command string, f cli.Flag) {
		fmt.Fprintf(&b, "complete -c runv -n %s", quote(condition))
		for _, n := range f.Names() {
			if len(n) == 1 {
				fmt.Fprintf(&b, " -s %s", n)
			} else {
				fmt.Fprintf(&b, " -l %s", n)
			}
		}
		if c := choices(command, f); c != nil {
			fmt.Fprintf(&b, " -x -a %s", quote(strings.Join(c, " ")))
		} else if takes(f) != "" {
			b.WriteString(" -r -F")
		}
		fmt.Fprintf(&b, " -d %s\n", quote(f.(cli.DocGenerationFlag).GetUsage()))
	}
	b.WriteString("complete -c runv -f\n")
	for _, f := range append(slices.Clone(app.Flags), cli.VersionFlag) {
		line("__fish_use_subcommand", "", f)
	}
	for _, c := range app.Commands {
		fmt.Fprintf(&b, "complete -c runv -n __fish_use_subcommand -a %s -d %s\n", c.Name, quote(c.Usage))
		for _, f := range c.Flags {
			line("__fish_seen_subcommand_from "+c.Name, c.Name, f)
		}
	}
	fmt.Fprintf(&b, "complete -c runv -n %s -a '(runv list --quiet 2>/dev/null)' -d container\n", quote("__fish_seen_subcommand_from "+strings.Join(ids, " ")))
	return b.String()
}
