// Command notify sends its arguments, a datagram each, to NOTIFY_SOCKET, and then
// waits until they have been read, as sd_notify_barrier(3) does.
package main

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func run() error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: os.Getenv("NOTIFY_SOCKET"), Net: "unixgram"})
	if err != nil {
		return err
	}
	for _, a := range os.Args[1:] {
		if _, err := conn.Write([]byte(a)); err != nil {
			return err
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	f, err := conn.File()
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(int(f.Fd()), []byte("BARRIER=1"), unix.UnixRights(int(w.Fd())), nil, 0); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	_, _ = r.Read(make([]byte, 1)) // EOF
	return nil
}
