// Command echod answers each datagram to a UDP port with "answer" and its text:
// "echod PORT". It is in the rows' image, as Debian's busybox has no server of UDP.
package main

import (
	"fmt"
	"net"
	"os"
)

func main() {
	if len(os.Args) != 2 {
		fail(fmt.Errorf("usage: echod PORT"))
	}
	c, err := net.ListenPacket("udp", ":"+os.Args[1])
	if err != nil {
		fail(err)
	}
	b := make([]byte, 64<<10) // more than a datagram can have
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			fail(err)
		}
		if _, err := c.WriteTo(append([]byte("answer "), b[:n]...), from); err != nil {
			fmt.Fprintln(os.Stderr, "echod:", err)
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "echod:", err)
	os.Exit(1)
}
