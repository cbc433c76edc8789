package queue

// RingHeadForTest reads the first word of a ring as the device does; queuetest,
// which plays the driver in another package, needs the same ordering.
func RingHeadForTest(ring []byte) (flags, idx uint16) { return load16(ring, 0), load16(ring, ringIdx) }

// SetRingHeadForTest publishes the first word of a ring as the device does.
func SetRingHeadForTest(ring []byte, flags, idx uint16) { setRingHead(ring, flags, idx) }

// LoadForTest and StoreForTest reach the event index at ring[off], as the device
// reaches that of its own ring.
func LoadForTest(ring []byte, off int) uint16 { return load16(ring, off) }

// StoreForTest writes the event index at ring[off].
func StoreForTest(ring []byte, off int, v uint16) { store16(ring, off, v) }
