package vsock

import (
	"encoding/hex"
	"testing"
	"unsafe"
)

// TestLayout compares with offsetof in <linux/virtio_vsock.h>, whose struct is
// packed: sizeof is 44, not unsafe.Sizeof.
func TestLayout(t *testing.T) {
	var h header
	offsets := []struct {
		name      string
		got, want uintptr
	}{
		{"src_cid", unsafe.Offsetof(h.srcCID), 0},
		{"dst_cid", unsafe.Offsetof(h.dstCID), 8},
		{"src_port", unsafe.Offsetof(h.srcPort), 16},
		{"dst_port", unsafe.Offsetof(h.dstPort), 20},
		{"len", unsafe.Offsetof(h.len), 24},
		{"type", unsafe.Offsetof(h.typ), 28},
		{"op", unsafe.Offsetof(h.op), 30},
		{"flags", unsafe.Offsetof(h.flags), 32},
		{"buf_alloc", unsafe.Offsetof(h.bufAlloc), 36},
		{"fwd_cnt", unsafe.Offsetof(h.fwdCnt), 40},
		{"end", unsafe.Offsetof(h.fwdCnt) + unsafe.Sizeof(h.fwdCnt), headerSize},
	}
	for _, o := range offsets {
		if o.got != o.want {
			t.Errorf("%s: got offset %d, want %d", o.name, o.got, o.want)
		}
	}
}

func TestEncode(t *testing.T) {
	h := header{srcCID: 0x0102030405060708, dstCID: 0x1112131415161718, srcPort: 0x21222324, dstPort: 0x31323334,
		len: 0x41424344, typ: 0x5152, op: 0x6162, flags: 0x71727374, bufAlloc: 0x81828384, fwdCnt: 0x91929394}
	var b [headerSize]byte
	h.encode(&b)
	want := "0807060504030201" + "1817161514131211" + "24232221" + "34333231" + "44434241" + "5251" + "6261" +
		"74737271" + "84838281" + "94939291"
	if got := hex.EncodeToString(b[:]); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := decodeHeader(&b); got != h {
		t.Errorf("got %+v, want %+v", got, h)
	}
}

func TestConfig(t *testing.T) {
	if got, want := hex.EncodeToString(New(0x0a0b0c0d).Config()), "0d0c0b0a00000000"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
