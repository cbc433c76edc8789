package setup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"runv/agent/task"
)

// Main is the first process of a container. It returns only if the process could
// not become the workload; the exit status is nobody's, the agent was told why.
// The calling goroutine is locked to the main thread.
func Main() int {
	runtime.LockOSThread()
	debug.SetGCPercent(-1) // it lives for milliseconds
	fds, err := filesOf(os.Args)
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		return 1
	}
	unix.CloseOnExec(fds.sync())
	unix.CloseOnExec(fds.config())
	err = run(fds)
	var look *task.LookError
	var exec *task.Error
	var hook *hookError
	if !errors.As(err, &look) && !errors.As(err, &exec) && !errors.As(err, &hook) {
		err = fmt.Errorf("error during container init: %w", err)
	}
	fds.sendFailed(err)
	return 1
}

func run(fds files) error {
	c, err := readConfig(fds)
	if err != nil {
		return err
	}
	settings := c.settings()
	keyring, err := settings.Keyring()
	if err != nil {
		return err
	}
	if err := append(task.Session(false), keyring...).Run(); err != nil {
		return err
	}
	if c.CgroupNS {
		// Not at clone: the new namespace starts at the caller's cgroup,
		// and this process is in its own only now.
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			return fmt.Errorf("unshare cgroup namespace: %w", err)
		}
	}
	if err := makeRoot(c); err != nil {
		return err
	}
	if c.Process.Terminal {
		if err := attachConsole(c); err != nil {
			return fmt.Errorf("set up the console: %w", err)
		}
	}
	if err := finish(c); err != nil {
		return err
	}
	return become(c, settings)
}

// finish does what is left to do with all privileges.
func finish(c *Config) error {
	if err := finishReadonly(c); err != nil {
		return err
	}
	if c.Readonly {
		if err := readonlyRoot(); err != nil {
			return err
		}
	}
	if c.Hostname != "" {
		if err := unix.Sethostname([]byte(c.Hostname)); err != nil {
			return os.NewSyscallError("sethostname", err)
		}
	}
	if c.Domainname != "" {
		if err := unix.Setdomainname([]byte(c.Domainname)); err != nil {
			return os.NewSyscallError("setdomainname", err)
		}
	}
	for key, value := range c.Sysctl {
		if err := WriteSysctl(key, value); err != nil {
			return err
		}
	}
	for _, p := range c.ReadonlyPaths {
		if err := readonlyPath(p); err != nil {
			return err
		}
	}
	for _, p := range c.MaskedPaths {
		if err := maskPath(p); err != nil {
			return err
		}
	}
	return nil
}

// become gives up what the config does not grant, finds the executable as the
// user who is to run it, waits for the word, and execs.
func become(c *Config, settings *task.Settings) error {
	env, err := task.CleanEnv(c.Process.Env)
	if err != nil {
		return err
	}
	env = task.WithHome(env, task.Home(c.Process.User.UID))
	entered, err := enterCwd(c.Process.Cwd)
	if err != nil {
		return err
	}
	settings.Hold = uintptr(c.files.sync())
	privileges, err := settings.Privileges(entered)
	if err != nil {
		return err
	}
	// Before the filter of the config, which may not know the call.
	hooks, err := newHooks(c, env)
	if err != nil {
		return err
	}
	fds := task.Call("close_range", unix.SYS_CLOSE_RANGE, uintptr(c.files.sync()), uintptr(^uint32(0)), unix.CLOSE_RANGE_CLOEXEC)
	if err := append(task.Script{fds}, privileges...).Run(); err != nil {
		return err
	}
	if !entered {
		if err := verifyCwd(); err != nil {
			return err
		}
	}
	path, err := task.LookPath(c.Process.Args[0], env)
	if err != nil {
		return err
	}
	exec, err := settings.Exec(path, env)
	if err != nil {
		return err
	}
	if err := c.files.awaitStart(); err != nil {
		return err
	}
	if err := hooks.run(); err != nil {
		return err
	}
	return exec.Run()
}

// enterCwd enters the working directory and verifies it, while no filter can
// forbid that: one that denies getcwd is nothing unusual. It returns false if the
// directory is left to the user who is to run the workload.
func enterCwd(dir string) (bool, error) {
	if dir == "" {
		return false, nil
	}
	err := unix.Chdir(dir)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("chdir to cwd (%q) set in config.json failed: %w", dir, err)
	}
	return true, verifyCwd()
}

// verifyCwd makes sure that the working directory is inside of the container: a
// path through a leaked descriptor could lead out (CVE-2024-21626).
func verifyCwd() error {
	wd, err := unix.Getwd()
	if errors.Is(err, unix.ENOENT) || (err == nil && !filepath.IsAbs(wd)) {
		return errors.New("current working directory is outside of container mount namespace root -- possible container breakout detected")
	}
	if err != nil {
		return os.NewSyscallError("getcwd", err)
	}
	return nil
}
