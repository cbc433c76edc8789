package qemu

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
	"golang.org/x/sys/unix"
)

// qmpSocket is the name of the control socket in the run directory. It exists
// only until we have connected to it.
const qmpSocket = "qmp.sock"

// dialQMP makes a listening socket for QEMU to inherit and connects to it at
// once: the connection waits in the backlog until QEMU accepts it, so nobody
// polls, and no path is left behind.
func dialQMP(run *os.File) (mon *qmp.SocketMonitor, inherit *os.File, err error) {
	// A socket's path is limited to 108 bytes, which the directory's own path
	// may already exceed.
	path := fmt.Sprintf("/proc/self/fd/%d/%s", run.Fd(), qmpSocket)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, nil, fmt.Errorf("qmp socket: %w", err)
	}
	defer l.Close()                                  //nolint:errcheck // the inherited copy is what counts
	defer unix.Unlinkat(int(run.Fd()), qmpSocket, 0) //nolint:errcheck // Close may have done it
	if inherit, err = l.File(); err != nil {
		return nil, nil, fmt.Errorf("qmp socket: %w", err)
	}
	if mon, err = qmp.NewSocketMonitor("unix", path, time.Second); err != nil {
		inherit.Close() //nolint:errcheck // unused
		return nil, nil, fmt.Errorf("qmp socket: %w", err)
	}
	return mon, inherit, nil
}

// watchQMP reads QEMU's events until it ends, and passes on what they say of the
// reason for that end.
// Meanwhile the links of network cards follow the devices.
func watchQMP(ctx context.Context, mon *qmp.SocketMonitor, cards []*card, note func(reason string)) {
	stop := context.AfterFunc(ctx, func() { mon.Disconnect() }) //nolint:errcheck // QEMU has ended, or will
	defer stop()
	if err := mon.Connect(); err != nil {
		return // QEMU ended before it said hello; its wait status tells why
	}
	events, err := mon.Events(ctx)
	if err != nil {
		return
	}
	var carried sync.WaitGroup
	defer carried.Wait()
	carried.Go(func() { carry(ctx, mon, cards) })
	for e := range events {
		switch e.Event {
		case "SHUTDOWN":
			note(fmt.Sprintf("guest shut down (%v)", e.Data["reason"]))
		case "GUEST_PANICKED":
			note("the guest's kernel panicked")
		}
	}
}
