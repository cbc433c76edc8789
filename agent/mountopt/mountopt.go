// Package mountopt reads the options of a mount of a config.json (runtime-spec
// v1.3 config.md "Linux mount options"). Host and guest read them alike: the host
// for what it mounts and shares, the guest for the container's own mounts. The
// names, and what is left to the file system, are those of runc 1.3.
package mountopt

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Options are the options of a mount, sorted by how they take effect.
type Options struct {
	Flags       uintptr         // of mount(2)
	Cleared     uintptr         // flags of mount(2) that were taken back, if by nothing but a default
	Propagation []uintptr       // of mount(2), each in a call of its own
	Rec         *unix.MountAttr // of mount_setattr(2), recursive; nil: none
	CopyUp      bool            // tmpcopyup
	IDMap       bool            // idmap or ridmap
	RecIDMap    bool            // ridmap: submounts, too
	Data        string          // what the file system is to parse
}

// IsBind says whether the options alone make the mount a bind.
func (o *Options) IsBind() bool { return o.Flags&unix.MS_BIND != 0 }

// flagOptions are the options that are flags of mount(2); clear takes a flag back.
var flagOptions = [...]struct {
	name  string
	clear bool
	flag  uintptr
}{
	{"async", true, unix.MS_SYNCHRONOUS},
	{"atime", true, unix.MS_NOATIME},
	{"bind", false, unix.MS_BIND},
	{"defaults", false, 0},
	{"dev", true, unix.MS_NODEV},
	{"diratime", true, unix.MS_NODIRATIME},
	{"dirsync", false, unix.MS_DIRSYNC},
	{"exec", true, unix.MS_NOEXEC},
	{"iversion", false, unix.MS_I_VERSION},
	{"lazytime", false, unix.MS_LAZYTIME},
	{"loud", true, unix.MS_SILENT},
	{"mand", false, unix.MS_MANDLOCK},
	{"noatime", false, unix.MS_NOATIME},
	{"nodev", false, unix.MS_NODEV},
	{"nodiratime", false, unix.MS_NODIRATIME},
	{"noexec", false, unix.MS_NOEXEC},
	{"noiversion", true, unix.MS_I_VERSION},
	{"nolazytime", true, unix.MS_LAZYTIME},
	{"nomand", true, unix.MS_MANDLOCK},
	{"norelatime", true, unix.MS_RELATIME},
	{"nostrictatime", true, unix.MS_STRICTATIME},
	{"nosuid", false, unix.MS_NOSUID},
	{"nosymfollow", false, unix.MS_NOSYMFOLLOW},
	{"rbind", false, unix.MS_BIND | unix.MS_REC},
	{"relatime", false, unix.MS_RELATIME},
	{"remount", false, unix.MS_REMOUNT},
	{"ro", false, unix.MS_RDONLY},
	{"rw", true, unix.MS_RDONLY},
	{"silent", false, unix.MS_SILENT},
	{"strictatime", false, unix.MS_STRICTATIME},
	{"suid", true, unix.MS_NOSUID},
	{"symfollow", true, unix.MS_NOSYMFOLLOW},
	{"sync", false, unix.MS_SYNCHRONOUS},
}

var propagationOptions = [...]struct {
	name string
	flag uintptr
}{
	{"private", unix.MS_PRIVATE},
	{"shared", unix.MS_SHARED},
	{"slave", unix.MS_SLAVE},
	{"unbindable", unix.MS_UNBINDABLE},
	{"rprivate", unix.MS_PRIVATE | unix.MS_REC},
	{"rshared", unix.MS_SHARED | unix.MS_REC},
	{"rslave", unix.MS_SLAVE | unix.MS_REC},
	{"runbindable", unix.MS_UNBINDABLE | unix.MS_REC},
}

// recOptions are the recursive options: each is attributes of mount_setattr(2)
// to set or to clear. One that sets a kind of atime clears the others.
var recOptions = [...]struct {
	name  string
	clear bool
	flag  uint64
}{
	{"rro", false, unix.MOUNT_ATTR_RDONLY},
	{"rrw", true, unix.MOUNT_ATTR_RDONLY},
	{"rnosuid", false, unix.MOUNT_ATTR_NOSUID},
	{"rsuid", true, unix.MOUNT_ATTR_NOSUID},
	{"rnodev", false, unix.MOUNT_ATTR_NODEV},
	{"rdev", true, unix.MOUNT_ATTR_NODEV},
	{"rnoexec", false, unix.MOUNT_ATTR_NOEXEC},
	{"rexec", true, unix.MOUNT_ATTR_NOEXEC},
	{"rnodiratime", false, unix.MOUNT_ATTR_NODIRATIME},
	{"rdiratime", true, unix.MOUNT_ATTR_NODIRATIME},
	{"rrelatime", false, unix.MOUNT_ATTR_RELATIME},
	{"rnorelatime", true, unix.MOUNT_ATTR_RELATIME},
	{"rnoatime", false, unix.MOUNT_ATTR_NOATIME},
	{"ratime", true, unix.MOUNT_ATTR_NOATIME},
	{"rstrictatime", false, unix.MOUNT_ATTR_STRICTATIME},
	{"rnostrictatime", true, unix.MOUNT_ATTR_STRICTATIME},
	{"rnosymfollow", false, unix.MOUNT_ATTR_NOSYMFOLLOW},
	{"rsymfollow", true, unix.MOUNT_ATTR_NOSYMFOLLOW},
}

// Options that are neither flags nor attributes.
const (
	copyUp = "tmpcopyup"
	idmap  = "idmap"
	ridmap = "ridmap"
)

// Names lists the options that are not a file system's own, sorted.
func Names() []string {
	out := []string{copyUp, idmap, ridmap}
	for _, f := range flagOptions {
		out = append(out, f.name)
	}
	for _, p := range propagationOptions {
		out = append(out, p.name)
	}
	for _, r := range recOptions {
		out = append(out, r.name)
	}
	slices.Sort(out)
	return out
}

// Parse reads the options, of which a later one overrides an earlier.
func Parse(options []string) Options {
	var o Options
	var data []string
	for _, opt := range options {
		if !o.add(opt) {
			data = append(data, opt)
		}
	}
	o.Data = strings.Join(data, ",")
	return o
}

// add takes an option that is not the file system's.
func (o *Options) add(opt string) bool {
	for _, f := range flagOptions {
		if f.name != opt {
			continue
		}
		if f.clear {
			o.Flags &^= f.flag
			o.Cleared |= f.flag
		} else {
			o.Flags |= f.flag
			o.Cleared &^= f.flag
		}
		return true
	}
	for _, p := range propagationOptions {
		if p.name == opt {
			o.Propagation = append(o.Propagation, p.flag)
			return true
		}
	}
	for _, r := range recOptions {
		if r.name == opt {
			o.addRec(r.flag, r.clear)
			return true
		}
	}
	switch opt {
	case copyUp:
		o.CopyUp = true
	case idmap, ridmap:
		o.IDMap, o.RecIDMap = true, opt == ridmap
	default:
		return false
	}
	return true
}

func (o *Options) addRec(flag uint64, off bool) {
	if o.Rec == nil {
		o.Rec = &unix.MountAttr{}
	}
	// The kinds of atime are values of one field, relatime the zero among
	// them: setting one, or going back to relatime, clears the field.
	atime := flag&unix.MOUNT_ATTR__ATIME != 0 || flag == unix.MOUNT_ATTR_RELATIME
	if atime {
		o.Rec.Attr_clr |= unix.MOUNT_ATTR__ATIME
		o.Rec.Attr_set &^= unix.MOUNT_ATTR__ATIME
	}
	switch {
	case !off:
		o.Rec.Attr_set |= flag
		if !atime {
			o.Rec.Attr_clr &^= flag
		}
	case !atime:
		o.Rec.Attr_clr |= flag
		o.Rec.Attr_set &^= flag
	}
}

// Propagation returns the flag of mount(2) for one of the options shared, slave,
// private and unbindable or their recursive forms.
func Propagation(name string) (flag uintptr, ok bool) {
	for _, p := range propagationOptions {
		if p.name == name {
			return p.flag, true
		}
	}
	return 0, false
}
