// Unixsock is one end of a Unix socket.
//
//	unixsock dial KIND PATH    stdin to the socket, half-close, the socket to stdout
//	unixsock serve KIND PATH   for each connection: who it is, then what it sent, reversed
//	unixsock bind KIND PATH    bind, say so, and wait for the end of stdin
//
// KIND is unix, unixpacket or unixgram. What a datagram server gets goes to stdout.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) != 4 {
		fail(fmt.Errorf("usage: unixsock dial|serve|bind KIND PATH"))
	}
	kind, path := os.Args[2], os.Args[3]
	switch os.Args[1] {
	case "dial":
		fail(dial(kind, path))
	case "serve":
		fail(serve(kind, path))
	case "bind":
		l, err := net.Listen(kind, path)
		fail(err)
		fmt.Println("bound")
		io.Copy(io.Discard, os.Stdin)
		l.Close()
	}
}

func fail(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// maxLine is more than any packet of the tests.
const maxLine = 200 << 10

func dial(kind, path string) error {
	conn, err := net.Dial(kind, path)
	if err != nil {
		return err
	}
	c := conn.(*net.UnixConn)
	if kind != "unix" {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); { // a line is a packet
			if _, err := c.Write(in.Bytes()); err != nil {
				return err
			}
		}
		if kind == "unixgram" {
			return nil
		}
		c.CloseWrite()
		buf := make([]byte, maxLine)
		for n, err := c.Read(buf); err == nil && n > 0; n, err = c.Read(buf) {
			fmt.Printf("%d: %s\n", n, buf[:min(n, 80)])
		}
		return nil
	}
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(c, os.Stdin)
		c.CloseWrite()
		sent <- err
	}()
	if _, err := io.Copy(os.Stdout, c); err != nil {
		return err
	}
	return <-sent
}

func serve(kind, path string) error {
	if kind == "unixgram" {
		c, err := net.ListenPacket(kind, path)
		if err != nil {
			return err
		}
		fmt.Println("bound")
		buf := make([]byte, maxLine)
		for {
			n, _, err := c.ReadFrom(buf)
			if err != nil {
				return err
			}
			fmt.Printf("%d: %s\n", n, buf[:min(n, 80)])
		}
	}
	l, err := net.Listen(kind, path)
	if err != nil {
		return err
	}
	fmt.Println("bound")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go answer(c.(*net.UnixConn), kind)
	}
}

func answer(c *net.UnixConn, kind string) {
	defer c.Close()
	raw, _ := c.SyscallConn()
	raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil {
			fmt.Fprintf(c, "%d %d\n", cred.Uid, cred.Gid)
		}
	})
	if kind == "unixpacket" {
		buf := make([]byte, maxLine)
		for {
			n, err := c.Read(buf)
			if err != nil || n == 0 {
				return
			}
			slices.Reverse(buf[:n])
			c.Write(buf[:n])
		}
	}
	all, _ := io.ReadAll(c)
	slices.Reverse(all)
	c.Write(all)
}
