package wire

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNotifyMessages(t *testing.T) {
	for _, want := range []NotifyMessage{
		{NotifyCall, bytes.Repeat([]byte{1}, NotifSize)}, {NotifyRespond, bytes.Repeat([]byte{2}, RespSize)},
		{NotifyValid, bytes.Repeat([]byte{3}, 8)}, ResultMessage(38),
	} {
		got, err := ReadNotify(bytes.NewReader(want.Bytes()))
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%q: %v %s", want.Kind, err, diff)
		}
	}
	for _, bad := range []string{"", "X", "Rabc"} {
		if _, err := ReadNotify(bytes.NewReader([]byte(bad))); err == nil {
			t.Errorf("%q: got no error", bad)
		}
	}
}

func FuzzReadNotify(f *testing.F) {
	f.Add(ResultMessage(1).Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := ReadNotify(bytes.NewReader(b)); err == nil && !bytes.HasPrefix(b, m.Bytes()) {
			t.Errorf("got %x of %x", m.Bytes(), b)
		}
	})
}
