package devfilter

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Number is the number of a device.
type Number struct{ Major, Minor uint32 }

// Disk is a block device of the host that the guest has under another number.
type Disk struct{ Host, Guest Number }

// Access says whether the container may read and write a block device.
func Access(l *specs.Linux, n Number) (read, write bool, err error) {
	bits, err := access(l, n)
	return bits&unix.BPF_DEVCG_ACC_READ != 0, bits&unix.BPF_DEVCG_ACC_WRITE != 0, err
}

// access returns the bits that the last rules about a block device allow.
func access(l *specs.Linux, n Number) (int32, error) {
	rules, rest, err := list(l, nil)
	if err != nil {
		return 0, err
	}
	var allowed int32
	if rest {
		allowed = allAccess
	}
	for _, r := range rules {
		switch {
		case len(r.kinds) == 1 && r.kinds[0] != unix.BPF_DEVCG_DEV_BLOCK,
			r.major != anyNumber && r.major != int64(n.Major),
			r.minor != anyNumber && r.minor != int64(n.Minor):
		case r.allow:
			allowed |= r.access
		default:
			allowed &^= r.access
		}
	}
	return allowed, nil
}

// diskRules give the guest's devices the access that the config gives the host's
// which they are: what it says of the guest's numbers means others.
func diskRules(l *specs.Linux, disks []Disk) ([]rule, error) {
	var out []rule
	for _, d := range disks {
		bits, err := access(l, d.Host)
		if err != nil {
			return nil, err
		}
		r := rule{
			kinds: []int32{unix.BPF_DEVCG_DEV_BLOCK}, major: int64(d.Guest.Major), minor: int64(d.Guest.Minor), access: allAccess &^ bits,
		}
		for _, allow := range []bool{false, true} {
			if r.allow = allow; allow {
				r.access = bits
			}
			if r.access != 0 {
				out = append(out, r)
			}
		}
	}
	return out, nil
}
