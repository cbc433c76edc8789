package check

import (
	"slices"
	"strings"

	"runv/libvm/cgroup"
)

// cgroups says which control groups the host has. A container is put into them, so
// there must be some, as under runc.
func cgroups() Result {
	r := Result{Name: "cgroups", Needed: true}
	version, controllers, err := cgroup.Host()
	if err != nil {
		r.Detail = err.Error()
		r.Cure = "mount them: mount -t cgroup2 cgroup2 /sys/fs/cgroup (in a container: run that with its cgroups)"
		return r
	}
	r.OK = true
	slices.Sort(controllers)
	r.Detail = version + ": " + strings.Join(controllers, " ")
	return r
}
