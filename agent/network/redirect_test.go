package network

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// run interprets a program on a struct bpf_sock_addr, as far as rewrite needs it.
func run(t *testing.T, prog, ctx []byte, cookie uint64) {
	t.Helper()
	var reg [11]uint64
	word := func(off int16) []byte { return ctx[off : off+4] }
	for pc, steps := 0, 0; steps < 100; steps++ {
		i := prog[pc*insnBytes:][:insnBytes]
		pc++
		dst, src := i[1]&15, i[1]>>4
		off, imm := int16(binary.NativeEndian.Uint16(i[2:])), binary.NativeEndian.Uint32(i[4:])
		switch i[0] {
		case unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_X:
			reg[dst] = reg[src]
		case unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K:
			reg[dst] = uint64(int32(imm))
		case unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W:
			reg[dst] = uint64(binary.NativeEndian.Uint32(word(off)))
		case unix.BPF_STX | unix.BPF_MEM | unix.BPF_W:
			binary.NativeEndian.PutUint32(word(off), uint32(reg[src]))
		case unix.BPF_LD | unix.BPF_IMM | unix.BPF_DW:
			reg[dst] = uint64(imm) | uint64(binary.NativeEndian.Uint32(prog[pc*insnBytes+4:]))<<32
			pc++
		case unix.BPF_JMP32 | unix.BPF_JNE | unix.BPF_K:
			if uint32(reg[dst]) != imm {
				pc += int(off)
			}
		case unix.BPF_JMP | unix.BPF_JNE | unix.BPF_X:
			if reg[dst] != reg[src] {
				pc += int(off)
			}
		case unix.BPF_JMP | unix.BPF_CALL:
			reg = [11]uint64{0: cookie, 6: reg[6]} // others are clobbered
		case unix.BPF_JMP | unix.BPF_EXIT:
			if reg[0] != 1 {
				t.Errorf("the program returns %d: the call is forbidden", reg[0])
			}
			return
		default:
			t.Fatalf("instruction %x", i)
		}
	}
	t.Fatal("the program does not end")
}

// TestRewrite: the port changes at that address and port, in that namespace, only.
func TestRewrite(t *testing.T) {
	const mine = 0x1_2345_6789_abcd
	address := [4]byte{127, 0, 0, 11}
	mapped := []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 11}
	other := append([]byte{0xfd}, mapped[1:]...)
	for _, tt := range []struct {
		name   string
		v6     bool
		ip     []byte
		port   uint16
		cookie uint64
		want   uint16
	}{
		{"asked", false, address[:], 53, mine, 40000},
		{"another port", false, address[:], 54, mine, 54},
		{"another address", false, []byte{127, 0, 0, 12}, 53, mine, 53},
		{"another namespace", false, address[:], 53, mine + 1, 53},
		{"another namespace, by its upper half", false, address[:], 53, mine - 1<<32, 53},
		{"mapped", true, mapped, 53, mine, 40000},
		{"an address that ends so", true, other, 53, mine, 53},
	} {
		ctx := make([]byte, 40)
		at := userIP4
		if tt.v6 {
			at = userIP6
		}
		copy(ctx[at:], tt.ip)
		binary.NativeEndian.PutUint32(ctx[userPort:], networkOrder(tt.port))
		want := bytes.Clone(ctx)
		binary.NativeEndian.PutUint32(want[userPort:], networkOrder(tt.want))
		run(t, rewrite(tt.v6, mine, address, 53, 40000), ctx, tt.cookie)
		if !bytes.Equal(ctx, want) {
			t.Errorf("%s: %x, want %x", tt.name, ctx, want)
		}
	}
}
