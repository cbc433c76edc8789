package vhostuser

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue/queuetest"
	"runv/libvm/virtio/rng"
)

// FuzzServe sends what the fuzzer likes: each message is one byte that says
// which descriptors come with it, one that says how many payload bytes follow,
// the request, the flags, and the payload. Serve has to end, by itself or when
// the connection does, without a panic and without a descriptor more.
func FuzzServe(f *testing.F) {
	step := func(fds byte, request byte, payload []byte) []byte {
		return append([]byte{fds, byte(len(payload)), request, VHOST_USER_VERSION | VHOST_USER_NEED_REPLY_MASK}, payload...)
	}
	small := memRegion{memorySize: fuzzRAM, userspaceAddr: frontendBase}
	d := queuetest.Place(f, make([]byte, queuetest.PlaceBytes), 0, 8, false)
	var boot []byte
	for _, s := range [][]byte{
		step(0, VHOST_USER_GET_PROTOCOL_FEATURES, nil),
		step(0, VHOST_USER_SET_PROTOCOL_FEATURES, u64(1<<VHOST_USER_PROTOCOL_F_REPLY_ACK)),
		step(0, VHOST_USER_SET_FEATURES, u64(1<<virtio.FVersion1|1<<VHOST_USER_F_PROTOCOL_FEATURES)),
		step(2, VHOST_USER_SET_VRING_CALL, u64(0)),
		step(2, VHOST_USER_SET_VRING_ERR, u64(0)),
		step(1, VHOST_USER_SET_MEM_TABLE, memTable(small)),
		step(0, VHOST_USER_SET_VRING_NUM, state(0, 8)),
		step(0, VHOST_USER_SET_VRING_BASE, state(0, 0)),
		step(0, VHOST_USER_SET_VRING_ADDR, ringAddr(0, d)),
		step(2, VHOST_USER_SET_VRING_KICK, u64(0)),
		step(0, VHOST_USER_SET_VRING_ENABLE, state(0, 1)),
	} {
		boot = append(boot, s...)
	}
	f.Add(boot)
	f.Add(append(boot, step(0, VHOST_USER_GET_VRING_BASE, state(0, 0))...))
	f.Add(append(boot, step(1, VHOST_USER_SET_MEM_TABLE, memTable(memRegion{memorySize: 4096, userspaceAddr: frontendBase}))...))
	f.Add(append(boot, step(0, VHOST_USER_RESET_DEVICE, nil)...))
	f.Add(append(boot, boot...))
	f.Add(step(0, VHOST_USER_GET_CONFIG, configMessage(0, 8, 0, make([]byte, 8))))
	f.Add(step(3, VHOST_USER_SET_VRING_KICK, u64(0)))
	f.Add(step(0xff, VHOST_USER_SET_MEM_TABLE, memTable(small)))

	f.Fuzz(func(t *testing.T, script []byte) {
		before := openFDs(t)
		fuzzOnce(t, script)
		if got := openFDs(t); got != before {
			t.Errorf("%d descriptors, %d before", got, before)
		}
	})
}

const fuzzRAM = 64 << 10 // bytes

func fuzzOnce(t *testing.T, script []byte) {
	conn, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.FileConn(theirs)
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close() //nolint:errcheck // FileConn has a duplicate
	memfd, event := newMemfd(t, fuzzRAM, 0), newEventfd(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		Serve(context.Background(), conn, rng.New()) //nolint:errcheck // any error will do
	}()
	drained := make(chan struct{})
	go func() { // answers are read, lest they fill the socket
		defer close(drained)
		b := make([]byte, 4096)
		for {
			if _, err := c.Read(b); err != nil {
				return
			}
		}
	}()
	kinds := []int{memfd, event, int(null.Fd())}
	for len(script) >= 4 {
		n := min(int(script[1]), len(script)-4)
		var oob []byte
		if script[0] != 0 {
			fds := make([]int, 1+int(script[0]>>2)%10)
			for i := range fds {
				fds[i] = kinds[(int(script[0]&3)+2)%3]
			}
			oob = unix.UnixRights(fds...)
		}
		h := header{request: uint32(script[2]), flags: uint32(script[3]), size: uint32(n)}
		if _, _, err := c.(*net.UnixConn).WriteMsgUnix(append(h.append(nil), script[4:4+n]...), oob, nil); err != nil {
			break // it ended the connection
		}
		script = script[4+n:]
	}
	unix.Write(event, u64(1))      //nolint:errcheck // a kick, if it is one
	c.(*net.UnixConn).CloseWrite() //nolint:errcheck // may be closed
	deadline := time.AfterFunc(10*time.Second, func() { panic("Serve does not end") })
	<-served
	deadline.Stop()
	<-drained
	c.Close()         //nolint:errcheck // a test's
	null.Close()      //nolint:errcheck // a test's
	unix.Close(memfd) //nolint:errcheck // ours
	unix.Close(event) //nolint:errcheck // ours
}
