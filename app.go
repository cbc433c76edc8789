package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/moby/sys/userns"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"runv/libvm"
	"runv/libvm/log"
)

// version and commit are set by the linker (-X main.version=…).
var (
	version = "0.1.0-dev"
	commit  = ""
)

const appUsage = `Open Container Initiative runtime that runs each container in a virtual machine

runv takes the commands, flags and bundles of runc. A bundle is a directory with
a specification file named "config.json" and a root filesystem; to run one:

    # runv run [ -b bundle ] <container-id>`

// app is what the commands share: the global flags, and the outcome.
type app struct {
	log    *log.Log // on stderr until the flags are read
	root   string   // absolute
	debug  bool
	status int // exit status if there is no error

	inherited int // files behind stdio that the caller left open
}

func newApp() *app {
	l, _ := log.Open(log.Options{}) // fails only for options
	return &app{log: l}
}

// cli describes the program.
func (a *app) cli() *cli.App {
	cli.HelpFlag = nil // see helpFlag
	root, _ := callersRoot()
	c := &cli.App{
		Name:                      "runv",
		Usage:                     appUsage,
		UsageText:                 "runv [global options] command [command options] [arguments...]",
		Version:                   versionText(),
		Flags:                     globalFlags(root),
		Before:                    a.before,
		Action:                    unknownCommand,
		OnUsageError:              usageError,
		DisableSliceFlagSeparator: true,                         // an environment variable may have commas
		ExitErrHandler:            func(*cli.Context, error) {}, // only main exits
		Commands: []*cli.Command{
			a.checkpointCommand(), a.updateCommand(), a.eventsCommand(), a.createCommand(), a.deleteCommand(), a.execCommand(), a.killCommand(), a.listCommand(), a.pauseCommand(), a.psCommand(),
			a.restoreCommand(), a.resumeCommand(),
			a.runCommand(), a.startCommand(), a.stateCommand(), specCommand(), featuresCommand(), a.checkCommand(),
		},
	}
	for _, command := range c.Commands {
		command.HideHelpCommand = true // "help" may be a container
		command.OnUsageError = usageError
		withHelp(command)
	}
	return c
}

// errHelp ends a command whose help was shown.
var errHelp = errors.New("help was shown")

// helpFlag is ours: the library's takes an argument beside it for a topic, and
// "runv create -h c1" has no help on "c1".
func helpFlag() cli.Flag {
	return &cli.BoolFlag{Name: "help", Aliases: []string{"h"}, Usage: "show help"}
}

// withHelp gives a command its flag --help.
func withHelp(command *cli.Command) {
	action := command.Action
	command.Flags = append(command.Flags, helpFlag())
	command.Action = func(c *cli.Context) error {
		if c.Bool("help") {
			return showHelp(c)
		}
		return action(c)
	}
}

func showHelp(c *cli.Context) error {
	return cmp.Or(cli.ShowCommandHelp(c, c.Command.Name), errHelp)
}

// versionText is what follows "runv version ": containerd and docker look for
// the line "commit: ".
func versionText() string {
	return fmt.Sprintf("%s\ncommit: %s\nspec: %s\ngo: %s", version, commit, specs.Version, runtime.Version())
}

func globalFlags(root string) []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "debug", Usage: "enable debug logging"},
		&cli.StringFlag{Name: "log", Usage: "set the log file to write runv logs to (default is '/dev/stderr')"},
		&cli.StringFlag{Name: "log-format", Value: "text", Usage: "set the log format ('text' (default), or 'json')"},
		&cli.StringFlag{Name: "root", Value: root, Usage: "root directory for storage of container state (this should be located in tmpfs)"},
		&cli.StringFlag{Name: "criu", Hidden: true},
		&cli.BoolFlag{Name: "systemd-cgroup", Usage: `enable systemd cgroup support, expects cgroupsPath to be of form "slice:prefix:name" for e.g. "system.slice:runv:434234"`},
		&cli.StringFlag{Name: "rootless", Value: "auto", Usage: "ignore cgroup permission errors ('true', 'false', or 'auto')"},
		&cli.StringFlag{Name: "kernel", Usage: "path of the guest's kernel (vmlinux or bzImage)"},
		&cli.StringFlag{Name: "backend", Usage: "what runs the virtual machine ('auto', 'kvm' or 'qemu')"},
		helpFlag(),
	}
}

// defaultRoot is where states are kept without --root: root's in /run, a user's
// in the runtime directory. A root that is one only in a user namespace is a
// user, which it shows by USER, as for runc.
func defaultRoot(getenv func(string) string, euid int, inUserNS bool) (path string, user bool) {
	user = euid != 0 || inUserNS && getenv("USER") != "root"
	if dir := getenv("XDG_RUNTIME_DIR"); dir != "" && user {
		return filepath.Join(dir, "runv"), true
	}
	return "/run/runv", false
}

// callersRoot is the defaultRoot of this process.
func callersRoot() (path string, user bool) {
	return defaultRoot(os.Getenv, os.Geteuid(), userns.RunningInUserNS())
}

// before reads the global flags.
func (a *app) before(c *cli.Context) error {
	if c.Bool("help") {
		return cmp.Or(cli.ShowAppHelp(c), errHelp)
	}
	a.debug = c.Bool("debug")
	l, err := log.Open(log.Options{Path: c.String("log"), Format: c.String("log-format"), Debug: a.debug})
	a.log = l
	if err != nil {
		return err
	}
	a.root, err = filepath.Abs(c.String("root"))
	if err != nil {
		return err
	}
	if a.root == "/" {
		//lint:ignore ST1005 runc's words
		return errors.New("Option --root argument should not be set to /")
	}
	if c.IsSet("criu") {
		fmt.Fprintln(c.App.ErrWriter, "WARNING: --criu ignored; do not use")
	}
	if _, user := callersRoot(); user && !c.IsSet("root") {
		// The sticky bit keeps cleaners of the runtime directory off
		// (XDG base directory specification).
		if err := os.MkdirAll(a.root, 0o700); err != nil {
			return err
		}
		return os.Chmod(a.root, 0o700|os.ModeSticky)
	}
	return nil
}

// runtime is the library with the global flags.
func (a *app) runtime(c *cli.Context) *libvm.Runtime {
	r := &libvm.Runtime{
		Root: a.root, Log: a.log.Logger, LogFile: a.log.File(), LogJSON: a.log.JSON(), Debug: a.debug,
		Kernel: c.String("kernel"), Backend: c.String("backend"), Inherited: a.inherited,
		SystemdCgroup: c.Bool("systemd-cgroup"),
	}
	// The user wants to see the monitor's steps, too; but one that outlives the
	// command must not hold the caller's stderr.
	if r.LogFile == nil && a.debug && c.Command.Name == "run" && !c.Bool("detach") {
		r.LogFile = os.Stderr
	}
	return r
}

// checkCgroupFlags checks the global flags that concern new containers.
func checkCgroupFlags(c *cli.Context) error {
	if v := strings.ToLower(c.String("rootless")); v != "" && v != "auto" {
		if _, err := strconv.ParseBool(v); err != nil {
			return fmt.Errorf("--rootless: %w", err)
		}
	}
	if c.Bool("systemd-cgroup") {
		if st, err := os.Lstat("/run/systemd/system"); err != nil || !st.IsDir() {
			return fmt.Errorf("systemd cgroup flag passed, but systemd support for managing cgroups is not available")
		}
	}
	return nil
}
