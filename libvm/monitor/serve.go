package monitor

import (
	"context"
	"crypto/rand"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/ctl"
	"runv/libvm/orphans"
	"runv/libvm/vm"
)

// entropyBytes is how much randomness a new guest gets: the size of the kernel's
// own seed.
const entropyBytes = 64

func entropy() []byte {
	b := make([]byte, entropyBytes)
	rand.Read(b) //nolint:errcheck // never fails
	return b
}

// serve answers the commands and passes signals on until the workload has
// ended, and returns its status.
func (m *monitor) serve(ctx context.Context) int {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := ctl.Serve(ctx, m.control, m.container); err != nil {
			m.log.Error("control socket", "error", err)
		}
	}()
	signalled := make(chan struct{})
	go func() {
		defer close(signalled)
		m.forwardSignals(ctx)
	}()
	reaped := make(chan struct{})
	go func() {
		defer close(reaped)
		m.reapOrphans(ctx)
	}()
	inotify := make(chan struct{})
	go func() {
		defer close(inotify)
		m.machine.watchFiles(ctx)
	}()
	trimmed := make(chan struct{})
	go func() {
		defer close(trimmed)
		trimLater(ctx)
	}()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		m.container.watchNetwork(ctx)
	}()
	for _, why := range m.diskless {
		m.log.Warn("a block device is not passed to the guest", "reason", why)
	}
	if m.degraded != nil {
		m.log.Warn("no hardware virtualization: the guest is emulated and slow", "reason", m.degraded)
	}
	status, err := m.container.wait(ctx)
	if err != nil {
		m.log.Error("the container was lost", "error", err)
		m.send(reply{Error: err.Error()}) //nolint:errcheck // only a run in the foreground still listens
	}
	cancel()
	// Calls that the guest leaves unanswered end with it.
	stuck := time.AfterFunc(answerTime, func() { m.machine.vm.Close() }) //nolint:errcheck // it is closed again
	defer stuck.Stop()
	<-trimmed
	<-inotify
	<-watched
	<-signalled
	<-reaped
	<-served
	return status
}

// reapOrphans reaps what the monitor gets as the first process of its pid
// namespace: children of those who entered it (nsenter, podman cp).
func (m *monitor) reapOrphans(ctx context.Context) {
	except := 0
	if child, ok := m.machine.vm.(vm.Child); ok {
		except = child.PID()
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	defer signal.Stop(ended)
	for {
		orphans.Reap(except)
		select {
		case <-ctx.Done():
			return
		case <-ended:
		}
	}
}

// signalQueue is how many signals may wait while one is on its way to the guest.
const signalQueue = 1024

// lastSignal is the last real-time signal on x86-64.
const lastSignal unix.Signal = 64

// catchSignals delivers what is sent to the monitor, from before there is a
// container on, and is never stopped: the hang-up of a client that has read
// everything, say, must not change our exit status. Not caught are Go's own
// preemption, which would fill the queue, QEMU's end, and SIGPIPE, nobody's
// business.
func catchSignals() chan os.Signal {
	var all []os.Signal
	for s := unix.Signal(1); s <= lastSignal; s++ {
		switch s {
		case unix.SIGURG, unix.SIGCHLD, unix.SIGPIPE:
		default:
			all = append(all, s)
		}
	}
	c := make(chan os.Signal, signalQueue)
	signal.Notify(c, all...)
	return c
}

// forwardSignals passes what is sent to the monitor on to the workload: engines
// signal a container by its pid, too. SIGWINCH and a hang-up come from the
// terminal and concern that.
func (m *monitor) forwardSignals(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-m.signals:
			sig := s.(unix.Signal)
			switch {
			case m.term != nil && sig == unix.SIGWINCH:
				m.resize(ctx)
			case m.term != nil && (sig == unix.SIGHUP || sig == unix.SIGCONT) && m.term.hungUp():
				// The relay sees it as the end of the terminal's input.
			default:
				m.log.Debug("signal", "number", int(sig))
				if err := m.container.Signal(ctx, int(sig), false); err != nil {
					m.log.Debug("signal not delivered", "number", int(sig), "error", err)
				}
			}
		}
	}
}
