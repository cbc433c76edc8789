// Package tty is the host's side of terminals: the caller's own, the pty pair
// through which a monitor relays, and the console socket over which the master
// of such a pair travels (runc's docs/terminals.md).
package tty

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Open makes a pty pair: the slave is raw, as the guest's own pty does the line
// discipline. Both are blocking, close-on-exec, and nobody's controlling
// terminal.
func Open() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: "/dev/ptmx", Err: err}
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	slave, err = openSlave(fd)
	if err != nil {
		_ = master.Close()
		return nil, nil, fmt.Errorf("make a terminal: %w", err)
	}
	return master, slave, nil
}

func openSlave(master int) (*os.File, error) {
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return nil, os.NewSyscallError("ioctl TIOCSPTLCK", err)
	}
	// TIOCGPTPEER asks for no path: /dev/pts may be another instance's here.
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, os.NewSyscallError("ioctl TIOCGPTPEER", errno)
	}
	slave := os.NewFile(fd, "pty slave")
	if err := makeRaw(int(fd)); err != nil {
		_ = slave.Close()
		return nil, err
	}
	return slave, nil
}

// makeRaw is cfmakeraw(3).
func makeRaw(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return os.NewSyscallError("ioctl TCGETS", err)
	}
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return os.NewSyscallError("ioctl TCSETS", unix.IoctlSetTermios(fd, unix.TCSETS, t))
}

// Size is the size of a terminal in characters; zeros if f is none.
func Size(f *os.File) (rows, cols uint16) {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return ws.Row, ws.Col
}

// SetSize sets the size of a terminal in characters.
func SetSize(f *os.File, rows, cols uint16) error {
	err := unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	return os.NewSyscallError("ioctl TIOCSWINSZ", err)
}

// Dial connects to the console socket at path.
func Dial(path string) (*os.File, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.File()
}

// Send sends the master over a connected console socket, as runc does: its name
// as the message, the descriptor along with it.
func Send(conn, master *os.File) error {
	err := unix.Sendmsg(int(conn.Fd()), []byte(master.Name()), unix.UnixRights(int(master.Fd())), nil, unix.MSG_NOSIGNAL)
	if err != nil {
		return fmt.Errorf("send the terminal: %w", os.NewSyscallError("sendmsg", err))
	}
	return nil
}

// Receiver is a console socket of our own, in a state directory.
type Receiver struct {
	dir  *os.File // for Path; the caller's
	name string
	l    *net.UnixListener
}

// Listen binds the console socket name in the open directory dir, which must
// stay open until Close. The directory's own path may be too long for a socket.
func Listen(dir *os.File, name string) (*Receiver, error) {
	r := &Receiver{dir: dir, name: name}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: r.Path(), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for the terminal: %w", err)
	}
	r.l = l
	return r, nil
}

// Path is where a process of our own pid namespace can connect.
func (r *Receiver) Path() string {
	return filepath.Join("/proc", strconv.Itoa(os.Getpid()), "fd", strconv.Itoa(int(r.dir.Fd())), r.name)
}

// Close ends Receive and removes the socket.
func (r *Receiver) Close() error { return r.l.Close() }

// maxName bounds the message, a name that nothing depends on.
const maxName = 4096 // bytes

// Receive waits for a connection and the master it brings.
func (r *Receiver) Receive() (*os.File, error) {
	c, err := r.l.AcceptUnix()
	if err != nil {
		return nil, fmt.Errorf("receive the terminal: %w", err)
	}
	defer c.Close()
	name, oob := make([]byte, maxName), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := c.ReadMsgUnix(name, oob)
	if err != nil {
		return nil, fmt.Errorf("receive the terminal: %w", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return nil, errors.Join(errors.New("receive the terminal: no descriptor in the message"), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.Join(errors.New("receive the terminal: not one descriptor in the message"), err)
	}
	return os.NewFile(uintptr(fds[0]), "/dev/ptmx"), nil
}
