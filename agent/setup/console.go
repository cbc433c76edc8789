package setup

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ptmxDevice is the number of /dev/ptmx and of every /dev/pts/ptmx.
const ptmxMajor, ptmxMinor = 5, 2

// OpenTerminal makes a pty of the calling thread's /dev/ptmx, and returns its
// sides and the name of the slave there. Output processing turns no newline into
// CR LF, as with runc: the terminal at the other end does that.
func OpenTerminal(rows, cols uint16) (master, slave int, name string, err error) {
	// The node is the image's, or the config's: it may be anything.
	master, err = unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, -1, "", &os.PathError{Op: "open", Path: "/dev/ptmx", Err: err}
	}
	defer func() {
		if err != nil {
			unix.Close(master)
		}
	}()
	var st unix.Stat_t
	if err = unix.Fstat(master, &st); err != nil {
		return -1, -1, "", &os.PathError{Op: "stat", Path: "/dev/ptmx", Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(ptmxMajor, ptmxMinor) {
		return -1, -1, "", errors.New("/dev/ptmx is not the pty multiplexer")
	}
	if err = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return -1, -1, "", os.NewSyscallError("ioctl TIOCSPTLCK", err)
	}
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		return -1, -1, "", os.NewSyscallError("ioctl TIOCGPTN", err)
	}
	// Not by its name, which could lead elsewhere.
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		err = os.NewSyscallError("ioctl TIOCGPTPEER", errno)
		return -1, -1, "", err
	}
	slave = int(fd)
	if err = configure(master, slave, rows, cols); err != nil {
		unix.Close(slave)
		return -1, -1, "", err
	}
	return master, slave, "/dev/pts/" + strconv.Itoa(n), nil
}

func configure(master, slave int, rows, cols uint16) error {
	t, err := unix.IoctlGetTermios(slave, unix.TCGETS)
	if err != nil {
		return os.NewSyscallError("ioctl TCGETS", err)
	}
	t.Oflag &^= unix.ONLCR
	if err := unix.IoctlSetTermios(slave, unix.TCSETS, t); err != nil {
		return os.NewSyscallError("ioctl TCSETS", err)
	}
	if rows == 0 && cols == 0 {
		return nil
	}
	if err := unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		return os.NewSyscallError("ioctl TIOCSWINSZ", err)
	}
	return nil
}

// attachConsole makes the terminal, gives its master to the agent, binds it on
// /dev/console and makes it the streams of this process.
func attachConsole(c *Config) error {
	master, slave, name, err := OpenTerminal(c.Rows, c.Cols)
	if err != nil {
		return err
	}
	defer unix.Close(master)
	defer unix.Close(slave)
	if err := unix.Fchown(slave, int(c.Process.User.UID), -1); err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) {
		return os.NewSyscallError("fchown", err)
	}
	if err := bindConsole(name); err != nil {
		return err
	}
	if err := c.files.sendConsole(master, slave); err != nil {
		return err
	}
	for fd := range 3 {
		if err := unix.Dup3(slave, fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
		return os.NewSyscallError("ioctl TIOCSCTTY", err)
	}
	return nil
}

func bindConsole(name string) error {
	fd, err := unix.Open("/dev/console", unix.O_CREAT|unix.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o666)
	if err != nil && !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.ENODEV) {
		return &os.PathError{Op: "create", Path: "/dev/console", Err: err}
	}
	if err == nil {
		unix.Close(fd)
	}
	if err := unix.Mount(name, "/dev/console", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s on /dev/console: %w", name, err)
	}
	return nil
}
