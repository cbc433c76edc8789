package libvm

import (
	"fmt"
	"os/user"
	"strconv"

	"runv/libvm/state"
)

// List returns the states of all containers in order of their ids, owners
// included. A broken one does not hide the others: it is in errs.
func (r *Runtime) List() (states []state.State, errs []error, err error) {
	ids, err := state.List(r.Root)
	if err != nil {
		return nil, nil, err
	}
	for _, id := range ids {
		s, err := r.listed(id)
		if err != nil {
			errs = append(errs, fmt.Errorf("load container %s: %w", id, err))
			continue
		}
		states = append(states, s)
	}
	return states, errs, nil
}

func (r *Runtime) listed(id string) (state.State, error) {
	d, s, err := r.load(id)
	if err != nil {
		return s, err
	}
	defer d.Close()
	uid, err := d.Owner()
	if err != nil {
		return s, err
	}
	name := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(name); err == nil {
		s.Owner = u.Username
	} else {
		s.Owner = "#" + name
	}
	return s, nil
}
