// Package initramfs writes the first filesystem of a guest: the agent as /init,
// the directories that it mounts on, and the kernel modules that a kernel which
// is not monolithic needs to reach its devices.
package initramfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// ModuleList is the file in the guest that names the modules to load: one
// absolute path a line, in load order, each line ended by a newline. It is
// there only if there are modules.
const ModuleList = "/etc/runv/modules"

// moduleRoot is the directory under which all modules are.
const moduleRoot = "/lib/modules/"

// Module is a kernel module, ready to be loaded.
type Module struct {
	Path string // in the guest: absolute, clean, under /lib/modules/
	Data []byte // the uncompressed ELF object
}

// Write writes an initramfs to w, an uncompressed newc archive: unpacking it is
// a copy for the guest, where decompressing would cost it time. The modules are
// listed in ModuleList in the order given. w gets large writes and needs no
// buffer; a memfd does well.
func Write(w io.Writer, agent []byte, modules []Module) error {
	return write(w, io.NewSectionReader(bytes.NewReader(agent), 0, int64(len(agent))), modules)
}

func write(w io.Writer, agent *io.SectionReader, modules []Module) error {
	if agent.Size() == 0 {
		return errors.New("initramfs: agent is empty")
	}
	list, err := moduleList(modules)
	if err != nil {
		return err
	}
	a := &archive{w: w}
	for _, dir := range []string{"dev", "proc", "sys", "run", "etc", "etc/runv"} {
		a.add(entry{name: dir, mode: modeDir | 0o755})
	}
	a.add(entry{name: "tmp", mode: modeDir | 0o1777})
	// The kernel opens it as /init's stdin, stdout and stderr.
	a.add(entry{name: "dev/console", mode: modeChar | 0o600, major: 5, minor: 1})
	a.add(entry{name: "init", mode: modeReg | 0o755, from: agent})
	if len(modules) > 0 {
		a.add(entry{name: ModuleList[1:], mode: modeReg | 0o644, data: []byte(list)})
		addModules(a, modules)
	}
	return a.close()
}

// moduleList returns the content of ModuleList.
func moduleList(modules []Module) (string, error) {
	var b strings.Builder
	seen := make(map[string]bool, len(modules))
	for _, m := range modules {
		switch {
		case !strings.HasPrefix(m.Path, moduleRoot), path.Clean(m.Path) != m.Path, strings.ContainsAny(m.Path, "\n\x00"):
			return "", fmt.Errorf("initramfs: module path %q is not a clean path under %s", m.Path, moduleRoot)
		case seen[m.Path]:
			return "", fmt.Errorf("initramfs: module %q given twice", m.Path)
		case len(m.Data) == 0:
			return "", fmt.Errorf("initramfs: module %q is empty", m.Path)
		}
		seen[m.Path] = true
		b.WriteString(m.Path)
		b.WriteByte('\n')
	}
	return b.String(), nil
}

// addModules adds the modules, each after the directories that lead to it: the
// kernel makes no parents.
func addModules(a *archive, modules []Module) {
	made := make(map[string]bool)
	for _, m := range modules {
		name := m.Path[1:]
		for i, c := range name {
			if c == '/' && !made[name[:i]] {
				made[name[:i]] = true
				a.add(entry{name: name[:i], mode: modeDir | 0o755})
			}
		}
		a.add(entry{name: name, mode: modeReg | 0o644, data: m.Data})
	}
}
