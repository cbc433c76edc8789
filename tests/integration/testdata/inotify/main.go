// Inotify watches the files that it is given, and writes a line for each event: the
// file, what happened, and the name. An event that says that a file was opened, read
// or closed unwritten is left out.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

var words = []struct {
	mask uint32
	word string
}{
	{unix.IN_MODIFY, "modify"}, {unix.IN_ATTRIB, "attrib"}, {unix.IN_CLOSE_WRITE, "close_write"},
	{unix.IN_CREATE, "create"}, {unix.IN_DELETE, "delete"}, {unix.IN_MOVED_FROM, "moved_from"}, {unix.IN_MOVED_TO, "moved_to"},
	{unix.IN_DELETE_SELF, "delete_self"}, {unix.IN_MOVE_SELF, "move_self"}, {unix.IN_ISDIR, "isdir"},
}

func main() {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	fail(err)
	paths := map[int32]string{}
	for _, p := range os.Args[1:] {
		wd, err := unix.InotifyAddWatch(fd, p, unix.IN_ALL_EVENTS&^(unix.IN_OPEN|unix.IN_ACCESS|unix.IN_CLOSE_NOWRITE))
		fail(err)
		paths[int32(wd)] = p
	}
	fmt.Println("watching")
	buf := make([]byte, 1<<16)
	for {
		n, err := unix.Read(fd, buf)
		fail(err)
		for b := buf[:n]; len(b) > 0; {
			mask, size := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[12:])
			name, _, _ := bytes.Cut(b[16:16+size], []byte{0})
			var what []string
			for _, w := range words {
				if mask&w.mask != 0 {
					what = append(what, w.word)
				}
			}
			fmt.Println(paths[int32(binary.NativeEndian.Uint32(b))], strings.Join(what, "+"), string(name))
			b = b[16+size:]
		}
	}
}

func fail(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
