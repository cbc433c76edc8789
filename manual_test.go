package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// TestManualPages holds man/*.8, which are made of the commands' definitions.
func TestManualPages(t *testing.T) {
	app := described(t)
	pages := map[string]string{"runv.8": mainPage(app)}
	for _, c := range app.Commands {
		pages["runv-"+c.Name+".8"] = commandPage(c)
	}
	for name, text := range pages {
		current(t, filepath.Join("man", name), []byte(text))
	}
	kept, err := filepath.Glob("man/*.8")
	if err != nil || len(kept) != len(pages) {
		t.Errorf("man has %q, %v: want %d pages", kept, err, len(pages))
	}
	if _, err := exec.LookPath("groff"); err != nil {
		t.Skip("groff is not there to check the pages (try: apt-get install groff-base)")
	}
	for _, page := range kept {
		if out, err := exec.Command("groff", "-man", "-ww", "-z", "-Tutf8", page).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v %s", page, err, out)
		}
	}
}

// roff writes man(7).
type roff struct{ strings.Builder }

// escaped is text that roff does not act on.
func escaped(s string) string {
	return strings.NewReplacer(`\`, `\(rs`, "-", `\-`, "'", `\(aq`, "^", `\(ha`, "~", `\(ti`).Replace(s)
}

func (r *roff) title(name string) {
	fmt.Fprintf(r, ".\\\" Made from the definitions of the commands by \"make generate\"; do not edit.\n.TH %s 8 \"\" runv \"runv manual\"\n",
		strings.ToUpper(escaped(name)))
}

func (r *roff) section(name string) { fmt.Fprintf(r, ".SH %s\n", name) }

// line writes text as one line of input.
func (r *roff) line(s string) {
	if strings.HasPrefix(s, ".") {
		r.WriteString(`\&`)
	}
	fmt.Fprintln(r, s)
}

// text writes paragraphs; lines that are indented are shown as they are.
func (r *roff) text(s string) {
	shown := false
	for l := range strings.Lines(s) {
		l = strings.TrimRight(l, "\n")
		code := strings.HasPrefix(l, "    ")
		if code != shown && l != "" {
			r.WriteString(map[bool]string{true: ".PP\n.RS 4\n.nf\n", false: ".fi\n.RE\n"}[code])
			shown = code
		}
		if l == "" {
			if !shown {
				r.WriteString(".PP\n")
			}
			continue
		}
		r.line(escaped(strings.TrimPrefix(l, "    ")))
	}
	if shown {
		r.WriteString(".fi\n.RE\n")
	}
}

func (r *roff) flags(flags []cli.Flag) {
	for _, f := range flags {
		d := f.(cli.DocGenerationFlag)
		var names []string
		for _, n := range f.Names() {
			names = append(names, `\fB`+escaped(dashed(n))+`\fP`)
		}
		value := ""
		if takes(f) != "" {
			value = ` \fIvalue\fP`
		}
		text := escaped(d.GetUsage())
		if def := d.GetDefaultText(); takes(f) != "" && def != "" && !strings.Contains(d.GetUsage(), "(default") {
			text += " (default: " + escaped(def) + ")"
		}
		if takes(f) == "values" {
			text += " (can be given more than once)"
		}
		r.WriteString(".TP\n")
		r.line(strings.Join(names, ", ") + value)
		r.line(text)
	}
}

func commandPage(c *cli.Command) string {
	var r roff
	r.title("runv-" + c.Name)
	r.section("NAME")
	r.line(escaped("runv-" + c.Name + " - " + c.Usage))
	r.section("SYNOPSIS")
	r.line(`\fBrunv\fP [\fIglobal options\fP] \fB` + c.Name + `\fP [\fIoptions\fP] ` + escaped(c.ArgsUsage))
	if c.Description != "" {
		r.section("DESCRIPTION")
		r.text(c.Description)
	}
	r.section("OPTIONS")
	r.flags(c.Flags)
	r.section("EXIT STATUS")
	switch c.Name {
	case "run":
		r.text("That of the container's process, 128+n if signal n ended it; 1 if the container did not start. With --detach 0.")
	case "exec":
		r.text("That of the process, 128+n if signal n ended it; 255 if it could not be started. With --detach 0.")
	default:
		r.text("0, or 1 after an error.")
	}
	r.section("SEE ALSO")
	r.line(`\fBrunv\fP(8)`)
	return r.String()
}

func mainPage(app *cli.App) string {
	var r roff
	short, long, _ := strings.Cut(app.Usage, "\n\n")
	r.title("runv")
	r.section("NAME")
	r.line(escaped("runv - " + short))
	r.section("SYNOPSIS")
	r.line(`\fBrunv\fP [\fIglobal options\fP] \fIcommand\fP [\fIoptions\fP] [\fIarguments\fP]`)
	r.section("DESCRIPTION")
	r.text(long)
	r.section("COMMANDS")
	for _, c := range app.Commands {
		r.WriteString(".TP\n")
		r.line(`\fB` + c.Name + `\fP`)
		r.line(escaped(c.Usage) + `; see \fBrunv\-` + c.Name + `\fP(8)`)
	}
	r.section("GLOBAL OPTIONS")
	r.flags(append(app.Flags, cli.VersionFlag))
	r.section("EXIT STATUS")
	r.text("0, 1 after an error, 3 for a command that does not exist; run and exec have more.")
	r.section("ENVIRONMENT")
	for _, e := range [][2]string{
		{"RUNV_KERNEL", "path of the guest's kernel; --kernel comes before it"},
		{"RUNV_BACKEND", "auto, kvm or qemu; --backend comes before it"},
		{"XDG_RUNTIME_DIR", "where states are kept, in runv, if the caller is not root"},
		{"NOTIFY_SOCKET, LISTEN_FDS, LISTEN_PID", "the protocols of systemd for services, which are passed on to the container, as by runc"},
	} {
		r.WriteString(".TP\n")
		r.line(`\fB` + e[0] + `\fP`)
		r.line(escaped(e[1]))
	}
	r.section("FILES")
	r.WriteString(".TP\n")
	r.line("/etc/runv/config.toml")
	r.line("settings of the host")
	r.WriteString(".TP\n")
	r.line("/run/runv")
	r.line("states of containers; see --root")
	return r.String()
}
