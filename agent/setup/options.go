package setup

import (
	"strings"

	"golang.org/x/sys/unix"
)

// mountOptions are the options of a mount, sorted by how they take effect.
type mountOptions struct {
	flags       uintptr         // of mount(2)
	propagation []uintptr       // of mount(2), each in a call of its own
	rec         *unix.MountAttr // of mount_setattr(2), recursive; nil: none
	copyUp      bool            // tmpcopyup
	data        string          // what the file system is to parse
}

// flagOptions are the options that are flags of mount(2); clear takes a flag
// back. The table is runc's (libcontainer/specconv, initMaps).
var flagOptions = [...]struct {
	name  string
	clear bool
	flag  uintptr
}{
	{"acl", false, unix.MS_POSIXACL},
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
	{"noacl", true, unix.MS_POSIXACL},
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

func parseOptions(options []string) mountOptions {
	var o mountOptions
	var data []string
	for _, opt := range options {
		if !o.add(opt) {
			data = append(data, opt)
		}
	}
	o.data = strings.Join(data, ",")
	return o
}

// add takes an option that is not the file system's.
func (o *mountOptions) add(opt string) bool {
	for _, f := range flagOptions {
		if f.name != opt {
			continue
		}
		if f.clear {
			o.flags &^= f.flag
		} else {
			o.flags |= f.flag
		}
		return true
	}
	for _, p := range propagationOptions {
		if p.name == opt {
			o.propagation = append(o.propagation, p.flag)
			return true
		}
	}
	for _, r := range recOptions {
		if r.name == opt {
			o.addRec(r.flag, r.clear)
			return true
		}
	}
	if opt == "tmpcopyup" {
		o.copyUp = true
		return true
	}
	return false
}

func (o *mountOptions) addRec(flag uint64, off bool) {
	if o.rec == nil {
		o.rec = &unix.MountAttr{}
	}
	// The kinds of atime are values of one field, relatime the zero among
	// them: setting one, or going back to relatime, clears the field.
	atime := flag&unix.MOUNT_ATTR__ATIME != 0 || flag == unix.MOUNT_ATTR_RELATIME
	if atime {
		o.rec.Attr_clr |= unix.MOUNT_ATTR__ATIME
		o.rec.Attr_set &^= unix.MOUNT_ATTR__ATIME
	}
	switch {
	case !off:
		o.rec.Attr_set |= flag
		if !atime {
			o.rec.Attr_clr &^= flag
		}
	case !atime:
		o.rec.Attr_clr |= flag
		o.rec.Attr_set &^= flag
	}
}

// propagationFlag returns the flag of linux.rootfsPropagation; 0: none given.
func propagationFlag(name string) (uintptr, bool) {
	if name == "" {
		return 0, true
	}
	for _, p := range propagationOptions {
		if p.name == name {
			// runc makes all of them recursive.
			return p.flag | unix.MS_REC, true
		}
	}
	return 0, false
}
