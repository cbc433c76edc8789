package main

import (
	"fmt"
	"io"
	"net"
	"time"
)

// What is done over the network, with the ports of tests/bench/network.go.
const (
	netBytes     = 512 << 20
	netQuestions = 500
)

// network sends, receives, and asks short questions one after the other.
func network(host string) error {
	dial := func(port string) (*net.TCPConn, error) {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(host, port), time.Minute)
		if err != nil {
			return nil, err
		}
		return c.(*net.TCPConn), nil
	}
	buf := make([]byte, 256<<10)
	if err := over(dial, "9001", "send-512MiB", func(c *net.TCPConn) error {
		for sent := 0; sent < netBytes; {
			n, err := c.Write(buf)
			if err != nil {
				return err
			}
			sent += n
		}
		if err := c.CloseWrite(); err != nil {
			return err
		}
		_, err := io.ReadFull(c, buf[:1])
		return err
	}); err != nil {
		return err
	}
	if err := over(dial, "9002", "receive-512MiB", func(c *net.TCPConn) error {
		for got := 0; got < netBytes; {
			n, err := c.Read(buf)
			if err != nil {
				return err
			}
			got += n
		}
		return nil
	}); err != nil {
		return err
	}
	return over(dial, "9003", "500-questions", func(c *net.TCPConn) error {
		for range netQuestions {
			if _, err := c.Write(buf[:1]); err != nil {
				return err
			}
			if _, err := io.ReadFull(c, buf[:1]); err != nil {
				return err
			}
		}
		return nil
	})
}

// over does a step over a connection, which is made before.
func over(dial func(string) (*net.TCPConn, error), port, name string, do func(*net.TCPConn) error) error {
	c, err := dial(port)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // the step has been done, or has failed
	begin := time.Now()
	if err := do(c); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Println("step", name, time.Since(begin).Nanoseconds())
	return nil
}
