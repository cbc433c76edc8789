package wire

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"
)

// packets is a reader of packets, as a SOCK_SEQPACKET is.
type packets [][]byte

func (p *packets) Read(b []byte) (int, error) {
	if len(*p) == 0 {
		return 0, io.EOF
	}
	n := copy(b, (*p)[0])
	*p = (*p)[1:]
	return n, nil
}

func TestPacketsKeepTheirBounds(t *testing.T) {
	want := [][]byte{[]byte("one"), {}, bytes.Repeat([]byte("x"), MaxPacket), []byte("last")}
	var stream bytes.Buffer
	src := packets(want)
	if err := SendPackets(&stream, &src, true); err != nil {
		t.Fatal(err)
	}
	var got [][]byte
	err := ReceivePackets(iotest.HalfReader(&stream), func(p []byte) error { got = append(got, bytes.Clone(p)); return nil })
	if err != nil || len(got) != len(want) {
		t.Fatalf("got %d packets, %v, want %d", len(got), err, len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Errorf("packet %d: got %d bytes, want %d", i, len(got[i]), len(want[i]))
		}
	}
}

func TestReceivePacketsRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []byte
	}{
		{"a length beyond the bound", []byte{1, 0, 4, 0, 1}},
		{"a short header", []byte{1, 0}},
		{"a short packet", []byte{2, 0, 0, 0, 'x'}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := ReceivePackets(bytes.NewReader(tt.in), func([]byte) error { return nil }); err == nil {
				t.Error("got no error")
			}
		})
	}
}

func TestPeer(t *testing.T) {
	want := Peer{UID: 1000, GID: 4294967294}
	got, err := ReadPeer(bytes.NewReader(want.Bytes()))
	if err != nil || got != want || len(want.Bytes()) != PeerSize {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

// FuzzReceivePackets: whatever a guest sends, no packet is larger than the bound,
// and what came whole comes out as it went in.
func FuzzReceivePackets(f *testing.F) {
	f.Add([]byte{3, 0, 0, 0, 'a', 'b', 'c', 0, 0, 0, 0})
	f.Add([]byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, in []byte) {
		var src packets
		err := ReceivePackets(bytes.NewReader(in), func(p []byte) error {
			if len(p) > MaxPacket {
				t.Fatalf("packet of %d bytes", len(p))
			}
			src = append(src, bytes.Clone(p))
			return nil
		})
		var again bytes.Buffer
		if serr := SendPackets(&again, &src, true); serr != nil {
			t.Fatal(serr)
		}
		if !bytes.HasPrefix(in, again.Bytes()) || err == nil && again.Len() != len(in) {
			t.Errorf("got %x of %x, %v", again.Bytes(), in, err)
		}
	})
}
