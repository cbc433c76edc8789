// Package log writes the log as runc does (logrus): a line of key=value pairs,
// or of JSON, with time (RFC 3339, local), level and msg. containerd looks for
// the JSON lines whose level is "error", and reads their msg and time.
package log

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options are the global flags about the log.
type Options struct {
	Path   string // --log; empty: stderr
	Format string // --log-format: text, json, or empty for text
	Debug  bool   // --debug
}

// Log is the log of one command.
type Log struct {
	*slog.Logger
	file *os.File // nil: stderr
	json bool
}

// Open opens the log: the file is appended to, as the calls of an engine share
// one.
func Open(o Options) (*Log, error) {
	l := &Log{Logger: New(os.Stderr, false, o.Debug)}
	switch o.Format {
	case "", "text":
	case "json":
		l.json = true
	default:
		return l, fmt.Errorf("invalid log-format: %s", o.Format)
	}
	var w io.Writer = os.Stderr
	if o.Path != "" {
		f, err := os.OpenFile(o.Path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return l, err
		}
		l.file, w = f, f
	}
	l.Logger = New(w, l.json, o.Debug)
	return l, nil
}

// File is the log file, for a process that shares it; nil if there is none.
func (l *Log) File() *os.File { return l.file }

// JSON reports the format.
func (l *Log) JSON() bool { return l.json }

// Fatal writes the one error of a command: into the log, and, if that is not
// stderr itself, as plain text there too.
func (l *Log) Fatal(err error) {
	l.Error(err.Error())
	if l.file != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// New returns a logger that writes to w, debug lines only if asked for.
func New(w io.Writer, asJSON, debug bool) *slog.Logger {
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	return slog.New(&handler{out: &output{w: w}, json: asJSON, level: level})
}

// output is shared by a logger and those derived from it.
type output struct {
	mu sync.Mutex
	w  io.Writer
}

type handler struct {
	out    *output
	json   bool
	level  slog.Level
	attrs  []slog.Attr // keys with their groups
	prefix string      // of the open groups, "a.b."
}

var _ slog.Handler = (*handler)(nil)

func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = append([]slog.Attr(nil), h.attrs...)
	for _, a := range attrs {
		c.attrs = flatten(c.attrs, h.prefix, a)
	}
	return &c
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.prefix += name + "."
	return &c
}

// flatten appends a, its groups as dots in the key.
func flatten(to []slog.Attr, prefix string, a slog.Attr) []slog.Attr {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, member := range v.Group() {
			to = flatten(to, prefix, member)
		}
		return to
	}
	if a.Key == "" {
		return to
	}
	return append(to, slog.Attr{Key: prefix + a.Key, Value: v})
}

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	attrs := append([]slog.Attr(nil), h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		attrs = flatten(attrs, h.prefix, a)
		return true
	})
	var line []byte
	var err error
	if h.json {
		line, err = jsonLine(r, attrs)
	} else {
		line = textLine(r, attrs)
	}
	if err != nil {
		return err
	}
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err = h.out.w.Write(line) // one write a line: the file is shared
	return err
}

// levelName is logrus' word for a level.
func levelName(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "debug"
	case l < slog.LevelWarn:
		return "info"
	case l < slog.LevelError:
		return "warning"
	}
	return "error"
}

func jsonLine(r slog.Record, attrs []slog.Attr) ([]byte, error) {
	m := make(map[string]any, len(attrs)+3) // printed in order of the keys
	for _, a := range attrs {
		m[a.Key] = jsonValue(a.Value)
	}
	m["level"], m["msg"], m["time"] = levelName(r.Level), r.Message, r.Time.Format(time.RFC3339)
	var b bytes.Buffer
	e := json.NewEncoder(&b) // ends the line
	e.SetEscapeHTML(false)
	if err := e.Encode(m); err != nil {
		return nil, fmt.Errorf("encode log line: %w", err)
	}
	return b.Bytes(), nil
}

func jsonValue(v slog.Value) any {
	switch v.Kind() {
	case slog.KindBool, slog.KindInt64, slog.KindUint64:
		return v.Any()
	}
	return v.String() // errors, durations, floats (NaN is no JSON), the rest
}

func textLine(r slog.Record, attrs []slog.Attr) []byte {
	var b strings.Builder
	b.WriteString("time=" + strconv.Quote(r.Time.Format(time.RFC3339)))
	b.WriteString(" level=" + levelName(r.Level) + " msg=" + quote(r.Message))
	for _, a := range attrs {
		b.WriteString(" " + a.Key + "=" + quote(a.Value.String()))
	}
	b.WriteByte('\n')
	return []byte(b.String())
}

// quote leaves alone what logrus does.
func quote(s string) string {
	plain := s != ""
	for _, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && !strings.ContainsRune("-._/@^+", rune(c)) {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	return strconv.Quote(s)
}
