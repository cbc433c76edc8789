package monitor

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"runv/agent/api"
	"runv/libvm/guest"
	"runv/libvm/state"
)

// How long a guest may take to deliver a SIGKILL. One that hangs must not keep
// its container alive; one that is slow has files to write and output to give.
const (
	killPatience     = 700 * time.Millisecond // on hardware, of a host that has time for us
	emulatedPatience = 2 * time.Second
	lastPatience     = 8 * time.Second // on a host that has no time: less than a command waits
)

// errDeaf says that the guest does not answer.
var errDeaf = errors.New("the guest does not answer")

// Signal sends sig to the workload, or to everything in the container. A SIGKILL
// that the guest does not deliver ends the VM.
func (c *container) Signal(ctx context.Context, sig int, all bool) error {
	if c.current() == state.Stopped {
		return state.ErrNotRunning
	}
	ctx, cancel := context.WithTimeoutCause(ctx, answerTime, errDeaf)
	defer cancel()
	if sig == int(unix.SIGKILL) {
		return c.kill(ctx, all)
	}
	return c.vcpus.while(func() error { return c.signalGuest(ctx, sig, all) })
}

func (c *container) signalGuest(ctx context.Context, sig int, all bool) error {
	_, err := c.agent().Signal(ctx, &api.SignalRequest{Id: c.monitor.launch.ID, Signal: uint32(sig), All: all})
	return guest.Error(err)
}

// kill also ends what is paused.
func (c *container) kill(ctx context.Context, all bool) error {
	patience, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	go c.outwait(patience, giveUp)
	err := c.vcpus.while(func() error {
		if err := c.signalGuest(patience, int(unix.SIGKILL), all); err != nil {
			return err
		}
		return c.vcpus.set(false)
	})
	if err != nil && errors.Is(context.Cause(patience), errDeaf) {
		c.monitor.log.Error("the guest did not deliver a SIGKILL: its virtual machine is ended" + c.monitor.machine.consoleTail())
		return c.monitor.machine.vm.Close()
	}
	if err == nil {
		c.killed.Do(func() { go c.relay.expire(unreadTime) })
	}
	return err
}

// outwait gives a guest up that has not answered in time, unless it is the host
// that has no time for it. It ends with ctx.
func (c *container) outwait(ctx context.Context, giveUp context.CancelCauseFunc) {
	wait := killPatience
	if c.monitor.degraded != nil {
		wait = emulatedPatience
	}
	for begin := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if time.Since(begin) > lastPatience || !starved() {
			giveUp(errDeaf)
			return
		}
	}
}
