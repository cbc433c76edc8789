package fs

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"runv/libvm/virtio/queue"
)

// pool serves one queue. Most requests take a few microseconds, less than it
// takes to wake another goroutine, so one goroutine, the leader, takes chains
// from the queue and serves them itself. A new leader relieves it
//
//   - when it has been in one request for a tick: the request blocks, in a
//     system call on a slow or dead disk, and the others must not wait for it;
//   - when there is another chain behind the one it took, and a processor for it.
//
// One that was relieved ends with its request, unless there is no leader then,
// because all workers were blocked.
type pool struct {
	device *Device
	queue  *queue.Queue
	wg     sync.WaitGroup

	// state is the leader's term, and in the lowest bit whether it is in a
	// request. Only the leader sets and clears the bit; whoever finds it set may
	// swap the next term in, and so relieve the leader.
	state  atomic.Uint64
	serial atomic.Uint64 // counts the leaders' requests
	armed  atomic.Bool   // the timer runs

	mu      sync.Mutex
	timer   *time.Timer
	last    uint64 // serial at the last tick
	workers int    // goroutines
	blocked int    // those of them that a tick relieved
	vacant  bool   // there is no leader: the next worker that is done becomes it
	ended   bool
	err     error
}

// tick is how long a request may take until it counts as blocked: longer than
// 1 MiB takes to copy, and seldom enough that a busy queue does not feel it.
const tick = 4 * time.Millisecond

const busy = 1 // the lowest bit of pool.state

// run serves the queue until it is closed or the driver breaks it, and returns
// when all requests are answered.
func (p *pool) run() error {
	p.mu.Lock()
	p.timer = time.AfterFunc(time.Hour, p.tick)
	p.workers = 1
	p.mu.Unlock()
	p.wg.Go(func() { p.lead(0, nil) })
	p.wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.timer.Stop()
	return p.err
}

// lead serves chains in the given term, the first of which may be c, until it
// was relieved or the queue ends.
func (p *pool) lead(term uint64, c *queue.Chain) {
	for {
		if c == nil {
			var err error
			if c, err = p.queue.Take(); err != nil {
				p.end(err)
				return
			}
		}
		divided := p.divide(term)
		if !divided {
			p.begin(term)
		}
		p.queue.Used(c, p.device.request(c))
		c = nil
		if !divided && p.state.CompareAndSwap(term<<1|busy, term<<1) {
			continue
		}
		var again bool
		if term, again = p.retire(!divided); !again {
			return
		}
	}
}

// divide hands the queue to a new leader, if there is more to do and a processor
// to do it.
func (p *pool) divide(term uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.workers-p.blocked >= p.device.parallel || p.workers >= maxWorkers {
		return false
	}
	next, err := p.queue.Next()
	if next == nil || err != nil {
		return false // the error comes again, when the leader goes on
	}
	p.workers++
	p.state.Store((term + 1) << 1)
	p.wg.Go(func() { p.lead(term+1, next) })
	return true
}

// begin notes that the leader is in a request.
func (p *pool) begin(term uint64) {
	p.state.Store(term<<1 | busy)
	p.serial.Add(1)
	p.arm()
}

func (p *pool) arm() {
	if !p.armed.Load() && p.armed.CompareAndSwap(false, true) {
		p.timer.Reset(tick)
	}
}

// tick relieves a leader that is in the same request as at the last tick. It
// goes on as long as there are requests.
func (p *pool) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed.Store(false)
	if p.ended {
		return
	}
	serial, state := p.serial.Load(), p.state.Load()
	if serial != p.last {
		p.last = serial
		p.arm()
		return
	}
	if state&busy == 0 {
		return // nothing is going on; begin arms the timer
	}
	next := state>>1 + 1
	if !p.state.CompareAndSwap(state, next<<1) {
		p.arm()
		return
	}
	p.blocked++
	if p.workers >= maxWorkers {
		p.vacant = true
		return
	}
	p.workers++
	p.wg.Go(func() { p.lead(next, nil) })
}

// retire ends a worker, or makes it the leader of the term it returns if there
// is none. wasBlocked says that a tick had relieved it.
func (p *pool) retire(wasBlocked bool) (uint64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if wasBlocked {
		p.blocked--
	}
	if p.vacant {
		p.vacant = false
		return p.state.Load() >> 1, true
	}
	p.workers--
	return 0, false
}

// end notes why the queue has ended.
func (p *pool) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.workers--
	if p.err == nil && !errors.Is(err, queue.ErrClosed) {
		p.err = err
	}
}
