package queue

// RingHeadForTest reads the first word of a ring as the device does; queuetest,
// which plays the driver in another package, needs the same ordering.
func RingHeadForTest(ring []byte) (flags, idx uint16) { return ringHead(ring) }

// SetRingHeadForTest publishes the first word of a ring as the device does.
func SetRingHeadForTest(ring []byte, flags, idx uint16) { setRingHead(ring, flags, idx) }
