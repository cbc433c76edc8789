package rtattr

import (
	"bytes"
	"testing"
)

func TestAppendAndEach(t *testing.T) {
	want := [][]byte{{1}, {1, 2, 3, 4}, {}, {1, 2, 3, 4, 5}}
	var b []byte
	for i, data := range want {
		b = Append(b, uint16(i), data)
		if len(b)%4 != 0 {
			t.Fatalf("%d bytes are not padded", len(b))
		}
	}
	var got [][]byte
	Each(b, func(kind uint16, data []byte) {
		if int(kind) != len(got) {
			t.Errorf("type %d, want %d", kind, len(got))
		}
		got = append(got, data)
	})
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Errorf("attribute %d: got %x, want %x", i, got[i], want[i])
		}
	}
}

func FuzzEach(f *testing.F) {
	f.Add(Append(nil, 3, []byte("abc")))
	f.Add([]byte{3, 0, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		Each(b, func(_ uint16, data []byte) { n += len(data) })
		if n > len(b) {
			t.Errorf("%d bytes of attributes in %d", n, len(b))
		}
	})
}
