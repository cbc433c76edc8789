package log

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var stamp = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)`)

func TestLines(t *testing.T) {
	tests := []struct {
		name  string
		json  bool
		debug bool
		log   func(*slog.Logger)
		want  string
	}{
		{"text", false, false, func(l *slog.Logger) { l.Error("container does not exist") }, "time=\"T\" level=error msg=\"container does not exist\"\n"},
		{"text word", false, false, func(l *slog.Logger) { l.Warn("odd", "path", "/a/b", "n", 3) }, "time=\"T\" level=warning msg=odd path=/a/b n=3\n"},
		{"text quotes", false, false, func(l *slog.Logger) { l.Info(`exec: "x"`, "e", "") }, "time=\"T\" level=info msg=\"exec: \\\"x\\\"\" e=\"\"\n"},
		{"json", true, false, func(l *slog.Logger) { l.Error(`a "b" <c>`) }, "{\"level\":\"error\",\"msg\":\"a \\\"b\\\" <c>\",\"time\":\"T\"}\n"},
		{"json attrs", true, true, func(l *slog.Logger) {
			l.With("id", "x").WithGroup("g").Debug("m", "err", errors.New("bad"), "n", 1, slog.Group("h", "d", time.Second))
		}, "{\"g.err\":\"bad\",\"g.h.d\":\"1s\",\"g.n\":1,\"id\":\"x\",\"level\":\"debug\",\"msg\":\"m\",\"time\":\"T\"}\n"},
		{"no debug", true, false, func(l *slog.Logger) { l.Debug("m") }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			tt.log(New(&b, tt.json, tt.debug))
			if diff := cmp.Diff(tt.want, stamp.ReplaceAllString(b.String(), "T")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFileIsAppendedTo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.json")
	for _, msg := range []string{"one", "two"} {
		l, err := Open(Options{Path: path, Format: "json"})
		if err != nil {
			t.Fatal(err)
		}
		l.Error(msg)
		if err := l.File().Close(); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for d := json.NewDecoder(bytes.NewReader(b)); d.More(); {
		var line struct {
			Level, Msg string
			Time       time.Time // RFC 3339, or Decode fails
		}
		if err := d.Decode(&line); err != nil {
			t.Fatal(err)
		}
		got = append(got, line.Level+" "+line.Msg)
	}
	if diff := cmp.Diff([]string{"error one", "error two"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestOpenErrors(t *testing.T) {
	for _, o := range []Options{{Format: "xml"}, {Path: filepath.Join(t.TempDir(), "none", "log")}} {
		l, err := Open(o)
		if err == nil || l == nil {
			t.Errorf("Open(%+v): got %v, %v; want a log on stderr and an error", o, l, err)
		}
	}
}
