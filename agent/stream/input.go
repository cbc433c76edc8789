package stream

import "os"

// Input feeds the stdin of a process, or another pipe that it reads. It ends at
// EOF of the host, when the process no longer reads, or by Close.
type Input struct {
	conn Conn
	pipe *os.File
	done chan struct{}
}

// NewInput starts to copy from conn to pipe, both of which it owns.
func (b *Buffers) NewInput(conn Conn, pipe *os.File) (*Input, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		conn.Close()
		pipe.Close()
		return nil, err
	}
	in := &Input{conn: conn, pipe: pipe, done: make(chan struct{})}
	go func() {
		defer close(in.done)
		// Whatever ended it, both sides learn: the process reads EOF, and
		// the host that nobody reads.
		_ = b.copyAll(pipe, raw, nil, nil)
		pipe.Close()
		conn.Close()
	}()
	return in, nil
}

// EndWithReaders ends the input also while the host has nothing to say: when
// nobody has the process's end of the pipe open any more.
func (in *Input) EndWithReaders() error {
	raw, err := in.pipe.SyscallConn()
	if err != nil {
		return err
	}
	go func() { // ends with the readers, or the input
		if raw.Read(pollHangUp) == nil { // Read, as Write would keep the copying waiting
			in.conn.Close()
		}
	}()
	return nil
}

// Close ends the copying and waits for it.
func (in *Input) Close() {
	in.conn.Close()
	in.pipe.Close()
	<-in.done
}
