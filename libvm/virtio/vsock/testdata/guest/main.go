// Command guest is /init of the guest in which the vsock device is tested
// against Linux's driver. It serves one command a connection on port 22.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/mdlayher/vsock"
)

func main() {
	err := serve()
	fmt.Println("guest: end:", err)
	if os.Getpid() == 1 {
		syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART)
	}
}

func serve() error {
	l, err := vsock.ListenContextID(0xffffffff, 22, nil) // VMADDR_CID_ANY: needs no /dev/vsock
	if err != nil {
		return err
	}
	start := time.Now()
	c, err := vsock.Dial(vsock.Host, 1024, nil) // says that we are up
	if err != nil {
		return err
	}
	fmt.Fprintln(c, time.Since(start).Microseconds())
	if err := c.Close(); err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			if err := command(c.(*vsock.Conn)); err != nil {
				fmt.Println("guest: command:", err)
			}
		}()
	}
}

func command(c *vsock.Conn) error {
	var b [9]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint64(b[1:])
	switch b[0] {
	case 'e': // echo until the end of the stream, and end ours
		if _, err := io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}); err != nil {
			return err
		}
		return c.CloseWrite()
	case 's': // sink: answer with the count, once the stream has ended
		sum, err := io.Copy(io.Discard, struct{ io.Reader }{c})
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(c, sum)
		return err
	case 'g': // give n bytes and close
		return give(c, int(n))
	case 'h': // give n bytes, end our direction, then answer with what still came
		if err := give(c, int(n)); err != nil {
			return err
		}
		if err := c.CloseWrite(); err != nil {
			return err
		}
		rest, err := io.ReadAll(c)
		return report(uint32(n), string(rest), err)
	case 'r': // end our receiving, then give n bytes and close
		if err := c.CloseRead(); err != nil {
			return err
		}
		return give(c, int(n))
	case 'l': // give n bytes, wait in close for the host's answer, and say how long
		return linger(c, int(n>>32), uint32(n))
	case 'p': // give until it fails, and say on which error
		for {
			if _, err := c.Write(make([]byte, 64<<10)); err != nil {
				return report(uint32(n), "", err)
			}
		}
	case 'd': // dial the low half of n, a port, as often at once as the high half says
		return dialMany(c, int(n>>32), uint32(n))
	case 't': // the same one after the other, and say how long one took
		start := time.Now()
		for range n >> 32 {
			s, err := vsock.Dial(vsock.Host, uint32(n), nil)
			if err != nil {
				return err
			}
			s.Close()
		}
		_, err := fmt.Fprint(c, time.Since(start).Microseconds()/int64(n>>32))
		return err
	}
	return fmt.Errorf("unknown command %q", b[0])
}

func give(c net.Conn, n int) error {
	p := make([]byte, 64<<10)
	for i := range p {
		p[i] = byte(i * 7)
	}
	for n > 0 {
		k, err := c.Write(p[:min(n, len(p))])
		if err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// linger gives n bytes, and dials port to say how many microseconds close took,
// which waits until the host has answered it, 5 s at most.
func linger(c *vsock.Conn, n int, port uint32) error {
	if err := give(c, n); err != nil {
		return err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1, Linger: 5})
	}); cerr != nil || err != nil {
		return errors.Join(cerr, err)
	}
	start := time.Now()
	if err := c.Close(); err != nil {
		return err
	}
	return report(port, fmt.Sprint(time.Since(start).Microseconds()), nil)
}

// report dials port of the host to say what happened.
func report(port uint32, what string, err error) error {
	c, derr := vsock.Dial(vsock.Host, port, nil)
	if derr != nil {
		return derr
	}
	defer c.Close()
	var errno syscall.Errno
	errors.As(err, &errno)
	_, err = fmt.Fprintf(c, "%s %d", what, int(errno))
	return err
}

// dialMany has n connections to port at once, and answers with how many failed
// and the microseconds that the mean dial took.
func dialMany(c net.Conn, n int, port uint32) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	failed, took := 0, time.Duration(0)
	all := make(chan struct{})
	open := sync.WaitGroup{}
	open.Add(n)
	for range n {
		wg.Go(func() {
			start := time.Now()
			s, err := vsock.Dial(vsock.Host, port, nil)
			mu.Lock()
			if err != nil {
				failed++
			}
			took += time.Since(start)
			mu.Unlock()
			open.Done()
			<-all
			if err == nil {
				s.Close()
			}
		})
	}
	open.Wait()
	_, err := fmt.Fprintf(c, "%d %d", failed, took.Microseconds()/int64(n))
	close(all)
	wg.Wait()
	return err
}
