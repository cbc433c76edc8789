package socket

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"runv/agent/rawsock"
	"runv/agent/stream"
	"runv/agent/wire"
)

// packets relays a socket that keeps the bounds of what is sent.
type packets struct {
	conn stream.Conn
	ours *os.File
	done chan struct{} // the direction to the host has ended
	over chan struct{}
}

func newPackets(c stream.Conn, ours *os.File, kind int) *packets {
	p := &packets{conn: c, ours: ours, done: make(chan struct{}), over: make(chan struct{})}
	var both sync.WaitGroup
	both.Go(func() {
		defer close(p.done)
		if kind == unix.SOCK_DGRAM {
			return // an answer has nowhere to go
		}
		if wire.SendPackets(c, ours, true) == nil {
			_ = c.CloseWrite()
			return
		}
		c.Close()
	})
	both.Go(func() {
		err := wire.ReceivePackets(c, func(b []byte) error { _, err := ours.Write(b); return err })
		if err == nil && kind != unix.SOCK_DGRAM && rawsock.CloseWrite(ours) == nil {
			return
		}
		ours.Close() // the process has gone, or the host talks nonsense
		c.Close()
	})
	go func() {
		both.Wait()
		p.Close()
		close(p.over)
	}()
	return p
}

func (p *packets) Done() <-chan struct{} { return p.done }
func (p *packets) Over() <-chan struct{} { return p.over }

func (p *packets) Close() {
	p.ours.Close()
	p.conn.Close()
}

// HungUp says whether the process has closed its end.
func (p *packets) HungUp() bool { return stream.HungUp(p.ours) }

// datagrams sends what processes send to a SOCK_DGRAM on, by one stream, which is
// opened with the first packet and again after it broke: a packet may be lost then,
// as any datagram may.
func (l *listener) datagrams() {
	var c stream.Conn
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	for {
		if raw, err := l.file.SyscallConn(); err != nil || raw.Read(rawsock.Readable) != nil {
			return // closed
		}
		if c == nil {
			var err error
			if c, err = l.open(-1); err != nil {
				return
			}
		}
		if err := wire.SendPackets(c, l.file, false); err == nil {
			return
		}
		c.Close()
		c = nil
	}
}
