package monitor

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"runv/agent/api"
	"runv/libvm/virtio/fs/passthrough"
)

// How often the agent looks for what is watched, at the most, while the guest looks
// files up: a guest that does nothing costs nothing. The longer one is for a guest
// that does not watch anything.
const (
	scanSoon = 600 * time.Millisecond
	scanLate = 5 * time.Second
)

// watchFiles has inotify in the guest show the changes that are made on the host
// (passthrough/watch.go), until ctx ends and the file server is closed.
func (mc *machine) watchFiles(ctx context.Context) {
	wait := scanSoon
	var once sync.Once
	for {
		select {
		case <-ctx.Done():
			return
		case <-mc.files.Activity():
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		mc.files.Rearm()
		if mc.scan() > 0 {
			wait = scanSoon
			once.Do(func() { go mc.files.Changes(mc.repeat) }) // ends with the file server
		} else {
			wait = min(2*wait, scanLate)
		}
	}
}

// scan asks the agent what is watched, and watches it.
func (mc *machine) scan() (watched int) {
	var r *api.WatchesResponse
	err := mc.socks.call(answerTime, func(ctx context.Context, a api.AgentService) (err error) {
		r, err = a.Watches(ctx, &api.WatchesRequest{})
		return err
	})
	if err != nil {
		return 0
	}
	nodes := make([]uint64, 0, len(r.Nodes)/8)
	for b := r.Nodes; len(b) >= 8; b = b[8:] {
		nodes = append(nodes, binary.LittleEndian.Uint64(b))
	}
	watched, err = mc.files.Watch(nodes, r.Thread)
	if err != nil {
		mc.socks.log.Warn("inotify in the guest does not show changes of the host", "error", err)
	}
	return watched
}

// repeat has the agent make a change of the host for the guest's watchers.
func (mc *machine) repeat(c passthrough.Change) {
	done, ok := mc.files.Repeat(&c)
	if !ok {
		return
	}
	defer done()
	err := mc.socks.call(answerTime, func(ctx context.Context, a api.AgentService) error {
		_, err := a.Repeat(ctx, &api.RepeatRequest{
			Kind: uint32(c.Kind), Dir: c.Dir, Name: c.Name, ToDir: c.ToDir, To: c.To, Mode: c.Mode,
		})
		return err
	})
	if err != nil {
		mc.socks.log.Debug("a change of the host is not seen by those who watch it", "name", c.Name, "kind", c.Kind, "error", err)
	}
}
