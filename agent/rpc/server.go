// Package rpc serves the calls of agent.proto on one connection: the server's
// half of the ttrpc protocol (github.com/containerd/ttrpc/PROTOCOL.md), unary
// calls only, whose client the host is. It is not that module, and its messages
// are not what protoc generates, since both prepare themselves by reflection when
// a program starts and again at each message's first use: a tenth of all code that
// an emulated guest runs up to its first container.
package rpc

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// The header of a frame: length of what follows, stream, type, flags.
const (
	headerSize   = 10
	typeRequest  = 1
	typeResponse = 2
	maxFrame     = 4 << 20 // bytes, as in ttrpc
)

// Code says what kind of failure an error is (google/rpc/code.proto).
type Code uint32

// The codes that the agent uses.
const (
	Unknown            Code = 2
	InvalidArgument    Code = 3
	DeadlineExceeded   Code = 4
	NotFound           Code = 5
	AlreadyExists      Code = 6
	ResourceExhausted  Code = 8
	FailedPrecondition Code = 9
	Unimplemented      Code = 12
)

// Error is an error with a code of its own; the others are Unknown.
type Error struct {
	Code Code
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error without its code.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an error with a code.
func Errorf(c Code, format string, args ...any) error {
	return &Error{c, fmt.Errorf(format, args...)}
}

// request and response are ttrpc's own messages, status is google.rpc.Status.
type (
	request struct {
		service, method string
		payload         []byte
		timeout         int64 // ns; 0: none
	}
	response struct {
		status  status
		payload []byte
	}
	status struct {
		code    uint32
		message string
	}
)

func (r *request) fields() []any {
	return []any{1: &r.service, 2: &r.method, 3: &r.payload, 4: &r.timeout}
}
func (r *response) fields() []any { return []any{1: &r.status, 2: &r.payload} }
func (s *status) fields() []any   { return []any{1: &s.code, 2: &s.message} }

// server is one connection.
type server struct {
	agent Agent
	conn  io.Writer

	mu sync.Mutex // of writes
}

// Serve answers calls, each in a goroutine of its own, until the host closes the
// connection, or is gone without: nil. A call that breaks off or is too large is
// an error. Calls that are being answered then have their context ended, but are
// not waited for.
func Serve(ctx context.Context, conn io.ReadWriter, a Agent) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &server{agent: a, conn: conn}
	in := bufio.NewReader(conn)
	var header [headerSize]byte
	for {
		if _, err := io.ReadFull(in, header[:]); err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				return fmt.Errorf("read a call: %w", err)
			}
			return nil
		}
		length, stream := binary.BigEndian.Uint32(header[0:]), binary.BigEndian.Uint32(header[4:])
		if length > maxFrame {
			return fmt.Errorf("call of %d bytes", length)
		}
		frame := make([]byte, length)
		if _, err := io.ReadFull(in, frame); err != nil {
			return fmt.Errorf("read a call: %w", err)
		}
		if header[8] != typeRequest {
			continue // nothing that a client of unary calls sends
		}
		go s.answer(ctx, stream, frame)
	}
}

// answer makes a call and sends its result. An error of sending is one of the
// connection, which Serve meets too.
func (s *server) answer(ctx context.Context, stream uint32, frame []byte) {
	payload, err := s.call(ctx, frame)
	r := response{payload: payload}
	if err != nil {
		r = response{status: statusOf(err)}
	}
	b := Marshal(&r)
	if len(b) > maxFrame {
		b = Marshal(&response{status: status{uint32(ResourceExhausted), fmt.Sprintf("answer of %d bytes", len(b))}})
	}
	out := make([]byte, headerSize, headerSize+len(b))
	binary.BigEndian.PutUint32(out[0:], uint32(len(b)))
	binary.BigEndian.PutUint32(out[4:], stream)
	out[8] = typeResponse
	out = append(out, b...)
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = s.conn.Write(out)
}

func (s *server) call(ctx context.Context, frame []byte) ([]byte, error) {
	var r request
	if err := Unmarshal(frame, &r); err != nil {
		return nil, Errorf(InvalidArgument, "request: %w", err)
	}
	if r.service != service {
		return nil, Errorf(Unimplemented, "service %s", r.service)
	}
	if r.timeout != 0 {
		limited, cancel := context.WithTimeout(ctx, time.Duration(r.timeout))
		defer cancel()
		ctx = limited
	}
	return dispatch(ctx, s.agent, r.method, r.payload)
}

// statusOf returns what an error is for the client. Its text is no longer than
// an error's: what a workload made of it must not fill a frame.
func statusOf(err error) status {
	code := Unknown
	var coded *Error
	switch {
	case errors.As(err, &coded):
		code = coded.Code
	case errors.Is(err, context.DeadlineExceeded):
		code = DeadlineExceeded
	}
	text := err.Error()
	return status{uint32(code), text[:min(len(text), maxText)]}
}

// maxText bounds the text of an error.
const maxText = 64 << 10 // bytes
