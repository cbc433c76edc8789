package libvm

import (
	"errors"
	"fmt"
	"os"

	"runv/libvm/state"
	"runv/libvm/tty"
)

// terminal is the caller's terminal and the pty whose other side the monitor
// relays. All methods are for a nil one, too: no terminal.
type terminal struct {
	host     *tty.Host
	receiver *tty.Receiver
	received chan received // one answer
	waiting  bool          // the answer was not taken yet
	closed   bool
	bridge   *tty.Bridge
}

type received struct {
	master *os.File
	err    error
}

// newTerminal finds the caller's terminal and listens for the pty.
func newTerminal(dir *os.File) (*terminal, error) {
	host, err := tty.OpenHost()
	if err != nil {
		return nil, err
	}
	r, err := tty.Listen(dir, state.ConsoleSocket)
	if err != nil {
		return nil, errors.Join(err, host.Close())
	}
	t := &terminal{host: host, receiver: r, received: make(chan received, 1), waiting: true}
	go func() { // ends with the receiver
		master, err := r.Receive()
		if err == nil {
			rows, cols := host.Size()
			err = tty.SetSize(master, rows, cols)
		}
		t.received <- received{master, err}
	}()
	return t, nil
}

func (t *terminal) socket() string {
	if t == nil {
		return ""
	}
	return t.receiver.Path()
}

// attach connects the terminals, once the monitor has sent its one.
func (t *terminal) attach() error {
	if t == nil {
		return nil
	}
	got := <-t.received
	t.waiting = false
	if got.err != nil {
		return got.err
	}
	if err := t.host.SetRaw(); err != nil {
		return errors.Join(err, got.master.Close())
	}
	var err error
	t.bridge, err = tty.NewBridge(got.master, os.Stdin, os.Stdout)
	return err
}

func (t *terminal) resize() {
	if t == nil {
		return
	}
	if rows, cols := t.host.Size(); rows != 0 || cols != 0 {
		_ = t.bridge.Resize(rows, cols) // fails only once the pty is gone
	}
}

// drain shows the rest of the output.
func (t *terminal) drain() {
	if t != nil && t.bridge != nil {
		t.bridge.Drain()
		t.bridge = nil
	}
}

// close gives the caller its terminal back. It may be called again.
func (t *terminal) close() {
	if t == nil || t.closed {
		return
	}
	t.closed = true
	t.drain()
	_ = t.receiver.Close()
	if t.waiting {
		if got := <-t.received; got.master != nil {
			_ = got.master.Close()
		}
	}
	if err := t.host.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "restore the terminal:", err)
	}
}
