package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// What the servers do, each at its port; tests/bench/work asks them in this order,
// by one connection each.
var services = [...]struct {
	step, port string
	serve      func(c net.Conn, datagrams net.PacketConn)
}{
	{"tcp-send", "9001", swallow},
	{"tcp-receive", "9002", flood},
	{"questions", "9003", func(c net.Conn, _ net.PacketConn) { io.Copy(c, c) }}, //nolint:errcheck // the other side tells
	{"udp-send", "9004", countDatagrams},
	{"udp-receive", "9005", sendDatagrams},
}

// swallow takes all, then answers with a byte.
func swallow(c net.Conn, _ net.PacketConn) {
	io.Copy(io.Discard, c) //nolint:errcheck // the other side tells
	c.Write([]byte{1})     //nolint:errcheck // as above
}

// flood sends without end.
func flood(c net.Conn, _ net.PacketConn) {
	b := make([]byte, 256<<10)
	for err := error(nil); err == nil; {
		_, err = c.Write(b)
	}
}

// datagramBytes is how long datagrams are: a full frame.
const datagramBytes = 1472

// countDatagrams is told a number, takes as many, and answers with a byte.
func countDatagrams(c net.Conn, datagrams net.PacketConn) {
	b := make([]byte, datagramBytes)
	n, err := io.ReadFull(c, b[:8])
	if err != nil || n != 8 {
		return
	}
	want, _ := strconv.Atoi(strings.TrimSpace(string(b[:8])))
	for got := 0; got < want; got++ {
		if _, _, err := datagrams.ReadFrom(b); err != nil {
			return
		}
	}
	c.Write([]byte{1}) //nolint:errcheck // the other side tells
}

// sendDatagrams is told a port, and sends datagrams there until the other side
// closes.
func sendDatagrams(c net.Conn, datagrams net.PacketConn) {
	b := make([]byte, datagramBytes)
	if _, err := io.ReadFull(c, b[:8]); err != nil {
		return
	}
	port, _ := strconv.Atoi(strings.TrimSpace(string(b[:8])))
	to := &net.UDPAddr{IP: net.ParseIP(nearAddress), Port: port}
	done := make(chan struct{})
	go func() { // ends with the connection
		io.Copy(io.Discard, c) //nolint:errcheck // waits for its end
		close(done)
	}()
	for {
		select {
		case <-done:
			return
		default:
			datagrams.WriteTo(b, to) //nolint:errcheck // what is lost is lost
		}
	}
}

// servers are those in one namespace.
type servers struct {
	listeners []io.Closer
	mu        sync.Mutex
	cpu       []reading // what steps took
}

// serveNetwork serves in a namespace until close.
func serveNetwork(ns *os.File) (*servers, error) {
	s := &servers{}
	for _, v := range services {
		var l net.Listener
		var datagrams net.PacketConn
		err := inside(ns, func() (err error) {
			at := net.JoinHostPort(farAddress, v.port)
			if l, err = net.Listen("tcp", at); err == nil {
				datagrams, err = net.ListenPacket("udp", at)
			}
			return err
		})
		if l != nil {
			s.listeners = append(s.listeners, l)
		}
		if err != nil {
			s.close()
			return nil, err
		}
		s.listeners = append(s.listeners, datagrams)
		go s.accept(l, v.step, func(c net.Conn) { v.serve(c, datagrams) })
	}
	return s, nil
}

// accept serves one connection after the other, until l is closed.
func (s *servers) accept(l net.Listener, step string, serve func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		begin, berr := childrenCPU()
		serve(c)
		end, eerr := childrenCPU()
		c.Close() //nolint:errcheck // the other side tells
		if errors.Join(berr, eerr) == nil {
			s.mu.Lock()
			s.cpu = append(s.cpu, reading{step + ":cpu", ms(end - begin)})
			s.mu.Unlock()
		}
	}
}

// take returns what CPU time steps took since it was last called, in ms.
func (s *servers) take() []reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.cpu
	s.cpu = nil
	return all
}

func (s *servers) close() {
	for _, l := range s.listeners {
		l.Close() //nolint:errcheck // only listened
	}
}

// childrenCPU returns the CPU time that everything below this process has used.
func childrenCPU() (time.Duration, error) {
	var sum time.Duration
	for todo := []int{os.Getpid()}; len(todo) > 0; todo = todo[1:] {
		lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", todo[0]))
		if err != nil {
			return 0, err
		}
		for _, list := range lists {
			children, _ := os.ReadFile(list) // the thread may have ended
			for _, child := range strings.Fields(string(children)) {
				pid, err := strconv.Atoi(child)
				if err != nil {
					return 0, err
				}
				used, err := cpuTime(pid)
				if err != nil {
					continue // it has ended
				}
				sum += used
				todo = append(todo, pid)
			}
		}
	}
	return sum, nil
}

// tick is the unit of CPU times in /proc (proc(5): USER_HZ).
const tick = 10 * time.Millisecond

// cpuTime returns what a process has used, with its children that it has waited for.
func cpuTime(pid int) (sum time.Duration, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	const utime, cstime = 14 - 3, 17 - 3 // counted from state, the third
	for _, f := range fields[utime : cstime+1] {
		n, err := strconv.Atoi(f)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}
