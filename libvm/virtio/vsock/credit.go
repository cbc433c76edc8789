package vsock

import "errors"

// errCredit says that the guest counted more bytes out of its buffer than were
// put into it.
var errCredit = errors.New("guest acknowledges what was not sent")

// maxPeerBuf bounds, in bytes, the receive buffer that we believe the guest to
// have, so that what is in flight stays well below 2^31 and the free running
// counters can be compared. Linux gives a socket 256 KiB.
const maxPeerBuf = 1 << 30

// credit is the sender's side of flow control (v1.2 §5.10.6.3 Buffer Space
// Management). The counters are free running and wrap at 2^32.
type credit struct {
	bufAlloc uint32 // bytes of buffer that the peer has
	fwdCnt   uint32 // bytes that left the peer's buffer, as far as we were told
	txCnt    uint32 // bytes that we have sent
}

// free returns how many bytes may be sent now. A peer that shrinks its buffer
// below what is in flight has no room, not a negative one.
func (c *credit) free() int {
	inFlight := c.txCnt - c.fwdCnt
	if inFlight >= c.bufAlloc {
		return 0
	}
	return int(c.bufAlloc - inFlight)
}

// update takes over what a packet of the peer says. Linux fills in a header and
// queues the packet in two steps, so two processors can swap two packets of one
// socket: a counter that goes backwards is old news and changes nothing.
func (c *credit) update(bufAlloc, fwdCnt uint32) error {
	if int32(fwdCnt-c.fwdCnt) < 0 {
		return nil
	}
	if fwdCnt-c.fwdCnt > c.txCnt-c.fwdCnt {
		return errCredit
	}
	c.bufAlloc, c.fwdCnt = min(bufAlloc, maxPeerBuf), fwdCnt
	return nil
}
