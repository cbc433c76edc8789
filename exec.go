package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"runv/libvm"
)

func (a *app) execCommand() *cli.Command {
	return &cli.Command{
		Name:        "exec",
		Usage:       "execute new process inside the container",
		ArgsUsage:   "<container-id> <command> [command options]  || -p process.json <container-id>",
		Description: "Runs a further process in a container:\n\n    # runv exec <container-id> ps",
		Flags:       execFlags(),
		Action: func(c *cli.Context) error {
			// What follows the id is the command, with flags of its own.
			if c.Args().Len() < 1 {
				_, err := arguments(c, arity{1, -1})
				return err
			}
			o, err := execOptions(c)
			if err == nil {
				a.status, err = a.runtime(c).Exec(c.Context, o)
			}
			if err != nil {
				return &statusCode{fmt.Errorf("exec failed: %w", err), statusExecFailed}
			}
			return nil
		},
	}
}

func execFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "console-socket", Usage: "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's pseudoterminal"},
		&cli.StringFlag{Name: "pidfd-socket", Usage: "path to an AF_UNIX socket which will receive a file descriptor referencing the process's stand-in on the host"},
		&cli.StringFlag{Name: "cwd", Usage: "current working directory in the container"},
		&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "set environment variables"},
		&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "allocate a pseudo-TTY"},
		&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "UID (format: <uid>[:<gid>])"},
		&cli.Int64SliceFlag{Name: "additional-gids", Aliases: []string{"g"}, Usage: "additional gids"},
		&cli.StringFlag{Name: "process", Aliases: []string{"p"}, Usage: "path to the process.json"},
		&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "detach from the container's process"},
		&cli.StringFlag{Name: "pid-file", Usage: "specify the file to write the process id to"},
		&cli.StringFlag{Name: "process-label", Usage: "set the asm process label for the process commonly used with selinux"},
		&cli.StringFlag{Name: "apparmor", Usage: "set the apparmor profile for the process"},
		&cli.BoolFlag{Name: "no-new-privs", Usage: "set the no new privileges value for the process"},
		&cli.StringSliceFlag{Name: "cap", Aliases: []string{"c"}, Usage: "add a capability to the bounding set for the process"},
		&cli.IntFlag{Name: "preserve-fds", Usage: "pass N additional file descriptors to the process (stdio + N in total): pipes, connected stream sockets, files to read or to write"},
		&cli.StringSliceFlag{Name: "cgroup", Usage: "run the process in an (existing) sub-cgroup(s). A path below the container's cgroup in the guest, which is of version 2: no controllers"},
		&cli.BoolFlag{Name: "ignore-paused", Usage: "allow exec in a paused container"},
	}
}

func execOptions(c *cli.Context) (libvm.ExecOptions, error) {
	if err := refuseFlags(c); err != nil {
		return libvm.ExecOptions{}, err
	}
	args := c.Args().Slice()
	o := libvm.ExecOptions{
		ID: args[0],
		Process: libvm.ProcessOptions{
			File:           c.String("process"),
			Args:           args[1:],
			Cwd:            c.String("cwd"),
			Env:            c.StringSlice("env"),
			TTY:            c.Bool("tty"),
			User:           c.String("user"),
			AdditionalGIDs: c.Int64Slice("additional-gids"),
			Capabilities:   c.StringSlice("cap"),
			AppArmor:       c.String("apparmor"),
			Label:          c.String("process-label"),
		},
		ConsoleSocket: c.String("console-socket"),
		Detach:        c.Bool("detach"),
		PidfdSocket:   c.String("pidfd-socket"),
		PreserveFDs:   c.Int("preserve-fds"),
		PidFile:       c.String("pid-file"),
		IgnorePaused:  c.Bool("ignore-paused"),
	}
	var err error
	if o.Cgroup, err = subCgroup(c.StringSlice("cgroup")); err != nil {
		return o, err
	}
	if c.IsSet("no-new-privs") {
		v := c.Bool("no-new-privs")
		o.Process.NoNewPrivileges = &v
	}
	return o, nil
}

// subCgroup reads --cgroup: one path, as there is one hierarchy in the guest. The
// words are runc's as far as it has such errors.
func subCgroup(args []string) (string, error) {
	if len(args) == 0 {
		return "", nil
	}
	path := args[0]
	switch {
	case len(args) > 1:
		return "", fmt.Errorf("invalid --cgroup argument: %s (the guest has cgroup v2: one path)", args[1])
	case strings.Contains(path, ":"):
		return "", fmt.Errorf("invalid --cgroup argument: %s (the guest has cgroup v2: a path without controllers)", path)
	case !filepath.IsLocal(strings.TrimLeft(path, "/")) && strings.Trim(path, "/") != "":
		return "", fmt.Errorf("bad sub cgroup path: %s", path)
	}
	return path, nil
}
