package libvm

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// signalQueue is how many signals may wait, so that none is lost while one is
// on its way to the guest.
const signalQueue = 2048

// catchSignals delivers all signals that a process gets, also those by which it
// would end. stop gives them their meaning back.
func catchSignals() (c chan os.Signal, stop func()) {
	c = make(chan os.Signal, signalQueue)
	signal.Notify(c)
	return c, func() { signal.Stop(c) }
}

// deliver puts a signal into the queue of catchSignals unless it is there already.
func deliver(queue chan os.Signal, sig os.Signal) {
	there := false
	for range len(queue) {
		s := <-queue
		there = there || s == sig
		queue <- s
	}
	if !there {
		queue <- sig
	}
}

// forwarded says whether a signal that a stand-in gets is meant for the process
// it stands for. SIGURG is the Go runtime's own, SIGCHLD and SIGPIPE are about
// the stand-in, SIGWINCH about its terminal.
func forwarded(s os.Signal) (number int, ok bool) {
	switch s {
	case unix.SIGURG, unix.SIGCHLD, unix.SIGPIPE, unix.SIGWINCH:
		return 0, false
	}
	n, ok := s.(unix.Signal)
	return int(n), ok
}
