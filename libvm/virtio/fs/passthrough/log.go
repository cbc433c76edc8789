package passthrough

import (
	"io"
	"log"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// discard takes go-fuse's messages, which a guest causes by malformed requests
// as often as it likes.
var discard = log.New(io.Discard, "", 0)

// onPanic answers a request whose handler panicked, which is a bug of ours: the
// guest gets EIO and the other containers of the process live on.
func onPanic(any) fuse.Status { return fuse.EIO }
