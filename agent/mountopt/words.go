package mountopt

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// flagNames are the flags of mount(2) as errors name them.
var flagNames = [...]struct {
	name string
	flag uintptr
}{
	{"MS_RDONLY", unix.MS_RDONLY},
	{"MS_NOSUID", unix.MS_NOSUID},
	{"MS_NODEV", unix.MS_NODEV},
	{"MS_NOEXEC", unix.MS_NOEXEC},
	{"MS_SYNCHRONOUS", unix.MS_SYNCHRONOUS},
	{"MS_REMOUNT", unix.MS_REMOUNT},
	{"MS_MANDLOCK", unix.MS_MANDLOCK},
	{"MS_DIRSYNC", unix.MS_DIRSYNC},
	{"MS_NOSYMFOLLOW", unix.MS_NOSYMFOLLOW},
	{"MS_NOATIME", unix.MS_NOATIME},
	{"MS_NODIRATIME", unix.MS_NODIRATIME},
	{"MS_BIND", unix.MS_BIND},
	{"MS_MOVE", unix.MS_MOVE},
	{"MS_REC", unix.MS_REC},
	{"MS_SILENT", unix.MS_SILENT},
	{"MS_UNBINDABLE", unix.MS_UNBINDABLE},
	{"MS_PRIVATE", unix.MS_PRIVATE},
	{"MS_SLAVE", unix.MS_SLAVE},
	{"MS_SHARED", unix.MS_SHARED},
	{"MS_RELATIME", unix.MS_RELATIME},
	{"MS_I_VERSION", unix.MS_I_VERSION},
	{"MS_STRICTATIME", unix.MS_STRICTATIME},
	{"MS_LAZYTIME", unix.MS_LAZYTIME},
}

// FlagNames names flags of mount(2), "|" between them.
func FlagNames(flags uintptr) string {
	var out []string
	for _, f := range flagNames {
		if flags&f.flag != 0 {
			out = append(out, f.name)
			flags &^= f.flag
		}
	}
	if flags != 0 {
		out = append(out, fmt.Sprintf("%#x", flags))
	}
	return strings.Join(out, "|")
}

// Error says, in runc's form, which call of mount(2) failed with err; nil if err
// is. Empty strings and no flags are left out.
func Error(source, target string, flags uintptr, data string, err error) error {
	if err == nil {
		return nil
	}
	var b strings.Builder
	b.WriteString("mount ")
	if source != "" {
		b.WriteString("src=" + source + ", ")
	}
	b.WriteString("dst=" + target)
	if flags != 0 {
		b.WriteString(", flags=" + FlagNames(flags))
	}
	if data != "" {
		b.WriteString(", data=" + data)
	}
	return fmt.Errorf("%s: %w", b.String(), err)
}

// Unknown adds to an error of a mount that its type is one that whose kernel does not
// have, if that is why (ENODEV).
func Unknown(err error, whose, fstype string) error {
	if !errors.Is(err, unix.ENODEV) {
		return err
	}
	return fmt.Errorf("the %s kernel has no file system %q: %w", whose, fstype, err)
}
