// Package pstable prints the processes of a container as ps(1) would. The
// processes are in a guest, so ps itself does not see them: its usual options
// and the columns of its -o are known here.
package pstable

import (
	"errors"
	"fmt"
	"io"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"runv/libvm/ctl"
)

// Table says which columns are printed.
type Table struct {
	columns []column
}

// column is one of a table.
type column struct {
	header string
	width  int // at least; the header's if that is wider
	right  bool
	value  func(t *rows, p ctl.Process) string
}

// Options tells which options of ps(1) Parse takes.
const Options = "-e -A -a -x -f -o LIST --format LIST, and BSD's a u x"

// The columns of ps -f, of ps without it, and of BSD's options with and without u.
const (
	full     = "user=UID,pid,ppid,c,stime,tname,time,cmd"
	short    = "pid,tname,time,ucmd"
	userForm = "user,pid,%cpu,%mem,vsz,rss,tname,stat,bsdstart,bsdtime,args"
	bsdForm  = "pid,tname,stat,bsdtime,args"
)

// Parse reads the options of ps. Without any it is -ef, as for runc.
func Parse(args []string) (*Table, error) {
	if len(args) == 0 {
		args = []string{"-ef"}
	}
	format, list := short, ""
	for i := 0; i < len(args); i++ {
		word := args[i]
		dash := strings.HasPrefix(word, "-")
		if word == "--format" && i+1 < len(args) {
			i++
			list += "," + args[i]
			continue
		}
		letters := strings.TrimPrefix(word, "-")
	options:
		for j, c := range letters {
			switch {
			case c == 'o':
				rest := letters[j+1:]
				if rest == "" {
					if i++; i == len(args) {
						return nil, fmt.Errorf("ps option %q needs a list of columns", word)
					}
					rest = args[i]
				}
				list += "," + rest
				break options
			case strings.ContainsRune("eAax", c) && dash: // all are shown anyway
			case c == 'f' && dash:
				format = full
			case strings.ContainsRune("ax", c):
				if format == short {
					format = bsdForm
				}
			case c == 'u' && !dash:
				format = userForm
			default:
				return nil, fmt.Errorf("ps option %q is not supported: the processes are in a virtual machine, where the host's ps does not see them (use: %s)", word, Options)
			}
		}
	}
	if list != "" {
		format = list[1:]
	}
	return columnsOf(format)
}

// columnsOf reads a list of columns, "pid,comm=NAME".
func columnsOf(list string) (*Table, error) {
	t := &Table{}
	known := columns()
	for _, word := range strings.FieldsFunc(list, func(c rune) bool { return c == ',' || c == ' ' }) {
		name, header, given := strings.Cut(word, "=")
		c, ok := known[name]
		if !ok {
			return nil, fmt.Errorf("ps column %q is not supported: the processes are in a virtual machine, where the host's ps does not see them (use: %s)", name, strings.Join(Columns(), " "))
		}
		if given {
			c.header = header
		}
		t.columns = append(t.columns, c)
	}
	if !slices.ContainsFunc(t.columns, func(c column) bool { return c.header == "PID" }) {
		return nil, errors.New("couldn't find PID field in ps output") // runc's words
	}
	return t, nil
}

// Columns lists the names that Parse takes.
func Columns() []string {
	var names []string
	for name := range columns() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// rows are what a column looks things up in.
type rows struct {
	now    time.Time
	inside map[int]int // guest's id: container's id
	users  map[uint32]string
}

// Write prints the header and a line for each process. Ids are those in the
// container. now is the time of the listing; users of the host name the ids, as
// they do for runc.
func (t *Table) Write(w io.Writer, processes []ctl.Process, now time.Time) error {
	r := &rows{now: now, inside: map[int]int{}, users: map[uint32]string{}}
	for _, p := range processes {
		r.inside[p.PID] = p.ContainerPID
	}
	if err := t.line(w, func(c column) string { return c.header }); err != nil {
		return err
	}
	for _, p := range processes {
		if err := t.line(w, func(c column) string { return printable(c.value(r, p)) }); err != nil {
			return err
		}
	}
	return nil
}

func (t *Table) line(w io.Writer, text func(column) string) error {
	var b strings.Builder
	for i, c := range t.columns {
		width := max(c.width, len(c.header))
		switch s := text(c); {
		case c.right:
			fmt.Fprintf(&b, "%*s", width, s)
		case i == len(t.columns)-1:
			b.WriteString(s)
		default:
			fmt.Fprintf(&b, "%-*s", width, s)
		}
		if i < len(t.columns)-1 {
			b.WriteByte(' ')
		}
	}
	_, err := fmt.Fprintln(w, b.String())
	return err
}

// printable takes what a terminal would act on out of a guest's words.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if strconv.IsPrint(c) {
			return c
		}
		return '?'
	}, s)
}

func (r *rows) user(uid uint32) string {
	if name, ok := r.users[uid]; ok {
		return name
	}
	id := strconv.FormatUint(uint64(uid), 10)
	name := id
	// Longer names do not fit, and ps shows the number then.
	if u, err := user.LookupId(id); err == nil && len(u.Username) <= 8 {
		name = u.Username
	}
	r.users[uid] = name
	return name
}
