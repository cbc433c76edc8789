package vhostuser

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"runv/libvm/virtio"
	"runv/libvm/virtio/queue"
	"runv/libvm/virtio/queue/queuetest"
	"runv/libvm/virtio/rng"
)

// TestBadMessages: each ends the connection with an error that says why, and
// leaves no descriptor open. Those that run come when the device runs.
func TestBadMessages(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close() //nolint:errcheck // /dev/null
	fd, event := int(null.Fd()), newEventfd(t)
	defer unix.Close(event) //nolint:errcheck // ours
	flagged := func(flags uint32) []byte { return header{request: VHOST_USER_GET_FEATURES, flags: flags}.append(nil) }
	tests := []struct {
		name string
		runs bool
		msg  []byte
		fds  []int
		want string
	}{
		{"version 0", false, flagged(0), nil, "flags 0x0"},
		{"a reply", false, flagged(VHOST_USER_VERSION | VHOST_USER_REPLY_MASK), nil, "flags 0x5"},
		{"payload of 4 GiB", false, header{request: VHOST_USER_SET_FEATURES, flags: 1, size: 1<<32 - 1}.append(nil), nil, "payload of 4294967295 bytes"},
		{"payload of one byte too many", false, packet(VHOST_USER_SET_MEM_TABLE, 0, make([]byte, maxPayload+1)), nil, "payload of 269 bytes"},
		{"unknown request", false, packet(99, 0, nil), nil, "not supported"},
		{"unknown request that wants a reply", false, packet(99, VHOST_USER_NEED_REPLY_MASK, nil), nil, "not supported"},
		{"short payload", false, packet(VHOST_USER_SET_FEATURES, 0, make([]byte, 7)), nil, "payload of 7 bytes, want 8"},
		{"payload where there is none", false, packet(VHOST_USER_GET_FEATURES, 0, make([]byte, 8)), nil, "payload of 8 bytes, want 0"},
		{"descriptor where there is none", false, packet(VHOST_USER_SET_FEATURES, 0, u64(0)), []int{fd}, "1 descriptors, want 0"},
		{"two kicks", false, packet(VHOST_USER_SET_VRING_KICK, 0, u64(0)), []int{event, event}, "2 descriptors, want 1"},
		{"nine descriptors", false, packet(VHOST_USER_SET_MEM_TABLE, 0, memTable(wholeRAM)), slices.Repeat([]int{fd}, 9), "more than 8 descriptors"},
		{"100 descriptors", false, packet(VHOST_USER_SET_MEM_TABLE, 0, memTable(wholeRAM)), slices.Repeat([]int{fd}, 100), "more than 8 descriptors"},
		{"feature that was not offered", false, packet(VHOST_USER_SET_FEATURES, 0, u64(1<<virtio.FAccessPlatform)), nil, "not offered"},
		{"protocol feature that was not offered", false, packet(VHOST_USER_SET_PROTOCOL_FEATURES, 0, u64(1<<60)), nil, "not offered"},
		{"features of a running device", true, packet(VHOST_USER_SET_FEATURES, 0, u64(0)), nil, "device runs"},
		{"protocol features of a running device", true, packet(VHOST_USER_SET_PROTOCOL_FEATURES, 0, u64(0)), nil, "device runs"},
		{"size of ring 1 of 1", false, packet(VHOST_USER_SET_VRING_NUM, 0, state(1, 8)), nil, "ring 1 of 1"},
		{"size of ring 2^32-1", false, packet(VHOST_USER_SET_VRING_NUM, 0, state(1<<32-1, 8)), nil, "ring 4294967295 of 1"},
		{"size 0", false, packet(VHOST_USER_SET_VRING_NUM, 0, state(0, 0)), nil, "size 0"},
		{"size 3", false, packet(VHOST_USER_SET_VRING_NUM, 0, state(0, 3)), nil, "size 3"},
		{"size 2048", false, packet(VHOST_USER_SET_VRING_NUM, 0, state(0, 2048)), nil, "size 2048"},
		{"size 65536", false, packet(VHOST_USER_SET_VRING_NUM, 0, state(0, 65536)), nil, "size 65536"},
		{"size of a running ring", true, packet(VHOST_USER_SET_VRING_NUM, 0, state(0, 8)), nil, "ring 0 runs"},
		{"place of a running ring", true, packet(VHOST_USER_SET_VRING_ADDR, 0, make([]byte, 40)), nil, "ring 0 runs"},
		{"base of a running ring", true, packet(VHOST_USER_SET_VRING_BASE, 0, state(0, 0)), nil, "ring 0 runs"},
		{"logging", false, packet(VHOST_USER_SET_VRING_ADDR, 0, append([]byte{0, 0, 0, 0, 1}, make([]byte, 35)...)), nil, "logging"},
		{"place of ring 9", false, packet(VHOST_USER_SET_VRING_ADDR, 0, append([]byte{9}, make([]byte, 39)...)), nil, "ring 9 of 1"},
		{"base 65536", false, packet(VHOST_USER_SET_VRING_BASE, 0, state(0, 65536)), nil, "base 65536"},
		{"base of ring 1", false, packet(VHOST_USER_GET_VRING_BASE, 0, state(1, 0)), nil, "ring 1 of 1"},
		{"enable 2", false, packet(VHOST_USER_SET_VRING_ENABLE, 0, state(0, 2)), nil, "enable 2"},
		{"enable ring 1", false, packet(VHOST_USER_SET_VRING_ENABLE, 0, state(1, 1)), nil, "ring 1 of 1"},
		{"kick for ring 256", false, packet(VHOST_USER_SET_VRING_KICK, 0, u64(1<<9)), []int{event}, "ring 0x200"},
		{"kick for ring 1", false, packet(VHOST_USER_SET_VRING_KICK, 0, u64(1)), []int{event}, "ring 1 of 1"},
		{"kick without a descriptor", false, packet(VHOST_USER_SET_VRING_KICK, 0, u64(0)), nil, "0 descriptors"},
		{"kick by polling", false, packet(VHOST_USER_SET_VRING_KICK, 0, u64(1<<8)), nil, "polling is not supported"},
		{"call that is said to be absent", false, packet(VHOST_USER_SET_VRING_CALL, 0, u64(1<<8)), []int{event}, "said to be absent"},
		{"kick that is a file", false, packet(VHOST_USER_SET_VRING_KICK, 0, u64(0)), []int{fd}, "not an eventfd"},
		{"call that is a file", true, packet(VHOST_USER_SET_VRING_CALL, 0, u64(0)), []int{fd}, "not an eventfd"},
		{"err that is a file", false, packet(VHOST_USER_SET_VRING_ERR, 0, u64(0)), []int{fd}, "not an eventfd"},
		{"memory table without a payload", false, packet(VHOST_USER_SET_MEM_TABLE, 0, nil), nil, "memory table of 0 bytes"},
		{"memory table of no region", false, packet(VHOST_USER_SET_MEM_TABLE, 0, memTable()), nil, "0 regions"},
		{"memory table of 9 regions", false, packet(VHOST_USER_SET_MEM_TABLE, 0, append(u64(9), make([]byte, 8*32)...)), nil, "9 regions"},
		{"memory table that is cut off", false, packet(VHOST_USER_SET_MEM_TABLE, 0, append(u64(2), make([]byte, 40)...)), nil, "2 regions in 48 bytes"},
		{"memory without a descriptor", false, packet(VHOST_USER_SET_MEM_TABLE, 0, memTable(wholeRAM)), nil, "0 descriptors for 1"},
		{"configuration that is cut off", false, packet(VHOST_USER_GET_CONFIG, 0, make([]byte, 8)), nil, "configuration message of 8 bytes"},
		{"configuration of another size", false, packet(VHOST_USER_GET_CONFIG, 0, configMessage(0, 9, 0, nil)), nil, "size 9"},
		{"configuration at 2^32-1", false, packet(VHOST_USER_GET_CONFIG, 0, configMessage(1<<32-1, 1, 0, []byte{1})), nil, "offset 4294967295"},
		{"configuration that is read-only", false, packet(VHOST_USER_SET_CONFIG, 0, configMessage(0, 1, 0, []byte{1})), nil, "read-only"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := openFDs(t)
			t.Run("message", func(t *testing.T) {
				f := newFrontend(t, rng.New())
				if tt.runs {
					f.connect(1)
					f.boot(defaultFeatures, 1, 0)
				}
				f.raw(tt.msg, tt.fds...)
				if err := f.wait(); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Serve: %v, want %q", err, tt.want)
				}
			})
			if got := openFDs(t); got != before {
				t.Errorf("%d descriptors, %d before", got, before)
			}
		})
	}
}

// TestBadMessageIsAcknowledged: a front-end that wants to know hears of it.
func TestBadMessageIsAcknowledged(t *testing.T) {
	f := newFrontend(t, rng.New())
	f.connect(1)
	f.raw(packet(VHOST_USER_SET_VRING_NUM, VHOST_USER_NEED_REPLY_MASK, state(0, 3)))
	if got := le64(f.answer(VHOST_USER_SET_VRING_NUM), 0); got == 0 {
		t.Error("a bad message was acknowledged with 0")
	}
	if err := f.wait(); err == nil {
		t.Error("Serve went on")
	}
}

// TestBadRingAddresses: the rings' places are only looked at when the device
// starts.
func TestBadRingAddresses(t *testing.T) {
	tests := []struct {
		name string
		desc uint64 // of the front-end
		want error
	}{
		{"outside of the memory", frontendBase - 16, nil},
		{"over the end of the memory", frontendBase + ramBytes - 16, queue.ErrBadRing},
		{"misaligned", frontendBase + 8, queue.ErrBadRing},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFrontend(t, rng.New())
			f.connect(1)
			f.ok(VHOST_USER_SET_FEATURES, u64(defaultFeatures|1<<VHOST_USER_F_PROTOCOL_FEATURES))
			f.ok(VHOST_USER_SET_MEM_TABLE, memTable(wholeRAM), f.memfd)
			d := queuetest.Place(t, f.ram, 0, 64, true)
			f.place(0, d, 0)
			addr := ringAddr(0, d)
			copy(addr[8:], u64(tt.desc))
			f.ok(VHOST_USER_SET_VRING_ADDR, addr)
			f.ok(VHOST_USER_SET_VRING_KICK, u64(0), d.KickFD())
			f.raw(packet(VHOST_USER_SET_VRING_ENABLE, 0, state(0, 1)))
			if err := f.wait(); err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("Serve: %v, want %v", err, tt.want)
			}
		})
	}
}
