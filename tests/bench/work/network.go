package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What is done over the network, with the servers of tests/bench/netserver.go.
const (
	netBytes      = 512 << 20 // by TCP, each way
	netQuestions  = 1000      // of a byte, one after the other
	netDatagrams  = 100_000   // that arrive, each way
	datagramBytes = 1472
)

// plug gives a bare machine's card an address, and sets it up.
func plug(address string) error {
	if address == "" {
		return nil
	}
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("network card: %w", err)
	}
	addr, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	return errors.Join(netlink.AddrAdd(link, addr), netlink.LinkSetUp(link))
}

// network does the steps, with the server at host.
func network(host string) error {
	part, err := part()
	if err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	for _, s := range []struct {
		name, port string
		endless    bool // the server sends until we close
		do         func(c *net.TCPConn) error
	}{
		{"tcp-send", "9001", false, func(c *net.TCPConn) error { return send(c, buf, netBytes/part) }},
		{"tcp-receive", "9002", true, func(c *net.TCPConn) error { return receive(c, buf, netBytes/part) }},
		{"questions", "9003", false, func(c *net.TCPConn) error { return ask(c, netQuestions/part) }},
		{"udp-send", "9004", false, func(c *net.TCPConn) error { return sendDatagrams(c, netDatagrams/part) }},
		{"udp-receive", "9005", false, func(c *net.TCPConn) error { return receiveDatagrams(c, netDatagrams/part) }},
	} {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(host, s.port), time.Minute)
		if err != nil {
			return err
		}
		begin := time.Now()
		conn := c.(*net.TCPConn)
		err = s.do(conn)
		took := time.Since(begin)
		if err == nil && !s.endless {
			// The server takes the time when it has noticed, while we are still there.
			conn.CloseWrite()         //nolint:errcheck // may have been done
			io.Copy(io.Discard, conn) //nolint:errcheck // it has closed, or is gone
		}
		c.Close() //nolint:errcheck // the step has been done, or has failed
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Println("step", s.name, took.Nanoseconds())
	}
	return nil
}

// send sends n bytes and waits until they were taken.
func send(c *net.TCPConn, buf []byte, n int) error {
	for sent := 0; sent < n; {
		k, err := c.Write(buf[:min(len(buf), n-sent)])
		if err != nil {
			return err
		}
		sent += k
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	_, err := io.ReadFull(c, buf[:1])
	return err
}

func receive(c *net.TCPConn, buf []byte, n int) error {
	for got := 0; got < n; {
		k, err := c.Read(buf)
		if err != nil {
			return err
		}
		got += k
	}
	return nil
}

func ask(c *net.TCPConn, n int) error {
	var b [1]byte
	for range n {
		if _, err := c.Write(b[:]); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return err
		}
	}
	return nil
}

// sendDatagrams sends until n have arrived.
func sendDatagrams(c *net.TCPConn, n int) error {
	to, err := net.Dial("udp", c.RemoteAddr().String())
	if err != nil {
		return err
	}
	defer to.Close() //nolint:errcheck // only written to
	if _, err := fmt.Fprintf(c, "%8d", n); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { // ends with the server's answer, or the connection
		_, err := io.ReadFull(c, make([]byte, 1))
		done <- err
	}()
	b := make([]byte, datagramBytes)
	for {
		select {
		case err := <-done:
			return err
		default:
			if _, err := to.Write(b); err != nil && !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ENOBUFS) {
				return err
			}
		}
	}
}

// receiveDatagrams has datagrams sent, and ends when n have arrived.
func receiveDatagrams(c *net.TCPConn, n int) error {
	from, err := net.ListenUDP("udp", &net.UDPAddr{IP: c.LocalAddr().(*net.TCPAddr).IP})
	if err != nil {
		return err
	}
	defer from.Close() //nolint:errcheck // only read from
	if _, err := fmt.Fprintf(c, "%8d", from.LocalAddr().(*net.UDPAddr).Port); err != nil {
		return err
	}
	b := make([]byte, datagramBytes)
	for range n {
		if _, err := from.Read(b); err != nil {
			return err
		}
	}
	return nil
}
