package kvm

import (
	"sync"
	"time"
)

// Registers of the MC146818 clock (its datasheet, table 2), in BCD, 24 hours.
const (
	cmosSeconds = 0x00
	cmosMinutes = 0x02
	cmosHours   = 0x04
	cmosWeekday = 0x06 // 1 is Sunday
	cmosDay     = 0x07
	cmosMonth   = 0x08
	cmosYear    = 0x09
	cmosStatusA = 0x0a
	cmosStatusB = 0x0b
	cmosStatusD = 0x0d
	cmosCentury = 0x32

	statusA = 0x26 // 32768 Hz; no update in progress
	statusB = 0x02 // 24 hours
	statusD = 0x80 // the battery is good
)

// cmos is the clock of a PC, read-only, in UTC. A kernel that does not find one
// waits a second for it.
type cmos struct {
	mu    sync.Mutex
	index byte
	now   func() time.Time
}

func (c *cmos) choose(index byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index = index & 0x7f // the top bit masks NMIs
}

// chosen is the register that read returns.
func (c *cmos) chosen() byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.index
}

func (c *cmos) read() byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now().UTC()
	switch c.index {
	case cmosSeconds:
		return bcd(now.Second())
	case cmosMinutes:
		return bcd(now.Minute())
	case cmosHours:
		return bcd(now.Hour())
	case cmosWeekday:
		return bcd(int(now.Weekday()) + 1)
	case cmosDay:
		return bcd(now.Day())
	case cmosMonth:
		return bcd(int(now.Month()))
	case cmosYear:
		return bcd(now.Year() % 100)
	case cmosCentury:
		return bcd(now.Year() / 100)
	case cmosStatusA:
		return statusA
	case cmosStatusB:
		return statusB
	case cmosStatusD:
		return statusD
	}
	return 0
}

func bcd(v int) byte { return byte(v/10<<4 | v%10) }
