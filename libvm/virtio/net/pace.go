package net

import (
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Small frames that come thick cost more to tell of than to move: a notification of
// the driver's, an interrupt in the guest, and the waking of a thread for each. So
// their queue is left alone for a moment at a time, unannounced, and what has come
// by then is moved at once. Frames that are alone, as questions and answers are, and
// long ones, of which the sender waits for few at a time, are moved when they come.
const (
	pauseTime = 100 * time.Microsecond
	closeGap  = 2 * pauseTime // waits that are shorter make a stream
	smallSize = 4 << 10       // bytes, of a frame in the mean
	minStreak = 8             // short waits in a row that make a stream at first
	maxStreak = 1024          // … when it was none again and again
	minRound  = 2             // frames that have to come in a pause
	paid      = 4             // pauses for which it was a stream
)

// pacer says when one direction of a card pauses. The zero value is ready.
type pacer struct {
	streak int // short waits in a row, behind each small frames
	need   int // … that it takes; 0: minStreak
	pauses int // in a row
}

// waited is told how long there was nothing.
func (p *pacer) waited(d time.Duration) {
	if d >= closeGap {
		p.streak = 0
		return
	}
	p.streak++
}

// next says whether to pause when all frames that there were, so many with so many
// bytes, have been moved.
func (p *pacer) next(frames, bytes int) bool {
	small := bytes <= frames*smallSize
	switch {
	case p.pauses > 0 && (frames < minRound || !small):
		if p.pauses < paid {
			p.need = min(2*max(p.need, minStreak), maxStreak)
		} else {
			p.need = minStreak
		}
		p.streak, p.pauses = 0, 0
		return false
	case !small:
		p.streak = 0
	}
	if p.pauses == 0 && p.streak < max(p.need, minStreak) {
		return false
	}
	p.pauses++
	return true
}

// pause waits for pauseTime, and a little, or until a signal comes. Others may have
// the processor first: Go's scheduler does not know of the wait.
func pause() {
	runtime.Gosched()
	t := unix.NsecToTimespec(int64(pauseTime))
	unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0) //nolint:errcheck // a signal may end it early
}
