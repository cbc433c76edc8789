package container

import (
	"io"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/agent/wire"
)

// extras are a pipe to read, one to write, a socket and the null device.
func (e *env) extras(name string) []File {
	return []File{
		{Token: e.token(name + "3"), Reads: true}, {Token: e.token(name + "4"), Writes: true},
		{Token: e.token(name + "5"), Reads: true, Writes: true}, {},
	}
}

const extrasScript = `cat <&3 >&4; read x <&5; echo $x back >&5; cat <&6; ls /proc/self/fd | wc -l >&4`

// talk plays the host's side of extras for extrasScript.
func (e *env) talk(t *testing.T, f []File) {
	t.Helper()
	in, out, socket := e.host(t, f[0].Token), e.host(t, f[1].Token), e.host(t, f[2].Token)
	_, _ = in.Write([]byte("through\n"))
	_ = in.CloseWrite()
	_, _ = socket.Write([]byte("there and\n"))
	// ls has one more open.
	if got, err := io.ReadAll(out); err != nil || string(got) != "through\n8\n" {
		t.Errorf("pipe: got %q, %v", got, err)
	}
	if got, err := io.ReadAll(socket); err != nil || string(got) != "there and back\n" {
		t.Errorf("socket: got %q, %v", got, err)
	}
	for _, c := range []io.Closer{in, out, socket} {
		c.Close()
	}
}

func TestExtraFiles(t *testing.T) {
	e := newEnv(t)
	for _, terminal := range []bool{false, true} {
		s := baseSpec("sh", "-c", extrasScript)
		s.Process.Terminal = terminal
		name := map[bool]string{false: "p", true: "t"}[terminal]
		f := e.extras(name)
		j, err := e.createWith(t, s, f)
		if err != nil {
			t.Fatal(err)
		}
		if err := j.c.Start(); err != nil {
			t.Fatal(err)
		}
		e.talk(t, f)
		j.hangUp(terminal)
		x := j.wait(t, "")
		if x.Status != 0 || len(x.Extra) != 4 || x.Extra[0] != 0 || x.Extra[1] != 10 || x.Extra[2] != 15 || x.Extra[3] != 0 {
			t.Errorf("got %+v", x)
		}
	}
}

// hangUp ends the streams of a process, so that its output need not be read.
func (j *job) hangUp(terminal bool) {
	j.stdin.Close()
	if !terminal {
		j.stdout.Close()
		j.stderr.Close()
	}
}

func TestExecExtraFiles(t *testing.T) {
	e := newEnv(t)
	j := e.sleeper(t, nil)
	for _, terminal := range []bool{false, true} {
		p := &specs.Process{Args: []string{"sh", "-c", extrasScript}, Cwd: "/", Env: []string{"PATH=/bin"}, Terminal: terminal}
		id := map[bool]string{false: "pipes", true: "terminal"}[terminal]
		f := e.extras(id)
		io := Stdio{Stdin: e.token("in" + id), Extra: f}
		if _, err := j.c.Exec(&ExecRequest{ExecID: id, Process: wire.MarshalProcess(p), Stdio: io}); err != nil {
			t.Fatal(err)
		}
		e.talk(t, f)
		if x := j.wait(t, id); x.Status != 0 || len(x.Extra) != 4 || x.Extra[1] != 10 || x.Extra[2] != 15 {
			t.Errorf("got %+v", x)
		}
	}
}
