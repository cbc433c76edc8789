package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Engines set up an interface in several steps. What changes within quiet of
// something else belongs to that; but longer than settle nobody waits.
const (
	quiet  = 20 * time.Millisecond
	settle = 200 * time.Millisecond
)

// watched are the groups of rtnetlink(7) that tell of changes.
const watched = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1) |
	1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1) | 1<<(unix.RTNLGRP_IPV4_RULE-1) | 1<<(unix.RTNLGRP_IPV6_RULE-1)

// Watcher hears of changes of a network namespace.
type Watcher struct{ socket *os.File }

// Watch begins to listen in the network namespace of the calling thread.
func Watch() (*Watcher, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch the network namespace: %w", os.NewSyscallError("socket", err))
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: watched}); err != nil {
		unix.Close(fd) //nolint:errcheck // unused
		return nil, fmt.Errorf("watch the network namespace: %w", os.NewSyscallError("bind", err))
	}
	return &Watcher{os.NewFile(uintptr(fd), "netlink")}, nil
}

// Close ends the listening.
func (w *Watcher) Close() error { return w.socket.Close() }

// Next returns once something has changed and then nothing for a while. An error is
// the end of ctx, or that nothing can be heard.
func (w *Watcher) Next(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { w.socket.SetReadDeadline(time.Unix(1, 0)) }) //nolint:errcheck // pollable
	defer stop()
	if err := w.hear(time.Time{}); err != nil {
		return err
	}
	for end := time.Now().Add(settle); ctx.Err() == nil; {
		next := time.Now().Add(quiet)
		if next.After(end) {
			return nil
		}
		if err := w.hear(next); errors.Is(err, os.ErrDeadlineExceeded) {
			return ctx.Err()
		} else if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// hear waits for one message. That some were lost is as good as one.
func (w *Watcher) hear(until time.Time) error {
	if err := w.socket.SetReadDeadline(until); err != nil {
		return err
	}
	var b [8 << 10]byte
	_, err := w.socket.Read(b[:])
	if errors.Is(err, unix.ENOBUFS) {
		return nil
	}
	return err
}
