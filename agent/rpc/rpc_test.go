package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	gstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"runv/agent/api"
)

// pairs are our messages with those of protoc.
var pairs = []struct {
	ours   Message
	theirs proto.Message
}{
	{&Empty{}, &api.Empty{}},
	{&ConfigureRequest{}, &api.ConfigureRequest{}}, {&ConfigureResponse{}, &api.ConfigureResponse{}},
	{&CreateContainerRequest{}, &api.CreateContainerRequest{}}, {&CreateContainerResponse{}, &api.CreateContainerResponse{}},
	{&StartContainerRequest{}, &api.StartContainerRequest{}},
	{&ExecRequest{}, &api.ExecRequest{}}, {&ExecResponse{}, &api.ExecResponse{}},
	{&FreezeRequest{}, &api.FreezeRequest{}}, {&SignalRequest{}, &api.SignalRequest{}}, {&ResizeRequest{}, &api.ResizeRequest{}},
	{&WaitRequest{}, &api.WaitRequest{}}, {&WaitResponse{}, &api.WaitResponse{}},
	{&ProcessesRequest{}, &api.ProcessesRequest{}}, {&ProcessesResponse{}, &api.ProcessesResponse{}},
	{&UpdateRequest{}, &api.UpdateRequest{}},
	{&MetricsRequest{}, &api.MetricsRequest{}}, {&MetricsResponse{}, &api.MetricsResponse{}},
	{&AwaitOOMRequest{}, &api.AwaitOOMRequest{}}, {&AwaitOOMResponse{}, &api.AwaitOOMResponse{}},
	{&DeleteContainerRequest{}, &api.DeleteContainerRequest{}},
	{&StatsRequest{}, &api.StatsRequest{}}, {&StatsResponse{}, &api.StatsResponse{}},
}

// fill gives every exported field a value of its own.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), n)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.String:
		v.SetString(fmt.Sprint("text ", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(-int64(*n))
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(200 + uint64(*n))
	default:
		panic(v.Type().String())
	}
}

// same compares by the names of fields.
func same(t *testing.T, path string, ours, theirs reflect.Value) {
	for theirs.Kind() == reflect.Pointer {
		theirs = theirs.Elem()
	}
	switch ours.Kind() {
	case reflect.Struct:
		n := 0
		for i := range theirs.NumField() {
			if f := theirs.Type().Field(i); f.IsExported() {
				n++
				o := ours.FieldByName(f.Name)
				if !o.IsValid() {
					t.Errorf("%s has no %s", path, f.Name)
					continue
				}
				same(t, path+"."+f.Name, o, theirs.Field(i))
			}
		}
		if n != ours.NumField() {
			t.Errorf("%s has %d fields, %d in agent.proto", path, ours.NumField(), n)
		}
	case reflect.Slice:
		if ours.Len() != theirs.Len() {
			t.Errorf("%s: %d elements, want %d", path, ours.Len(), theirs.Len())
			return
		}
		for i := range ours.Len() {
			same(t, path, ours.Index(i), theirs.Index(i))
		}
	default:
		if !ours.Equal(theirs) {
			t.Errorf("%s: %v, want %v", path, ours, theirs)
		}
	}
}

func TestMessages(t *testing.T) {
	methods := reflect.TypeFor[api.AgentService]()
	for i := range methods.NumMethod() {
		if _, ok := reflect.TypeFor[Agent]().MethodByName(methods.Method(i).Name); !ok {
			t.Errorf("no method %s", methods.Method(i).Name)
		}
	}
	for _, p := range pairs {
		ours, theirs := reflect.ValueOf(p.ours).Elem(), reflect.ValueOf(p.theirs).Elem()
		name, n := theirs.Type().Name(), 0
		fill(theirs, &n)
		b, err := proto.Marshal(p.theirs)
		if err != nil {
			t.Fatal(err)
		}
		if err := Unmarshal(b, p.ours); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		same(t, name, ours, theirs)
		back := theirs.Addr().Interface().(proto.Message).ProtoReflect().New().Interface()
		if err := proto.Unmarshal(Marshal(p.ours), back); err != nil || !proto.Equal(back, p.theirs) {
			t.Errorf("%s: protobuf reads %v, %v, want %v", name, back, err, p.theirs)
		}
		for i := range b {
			_ = Unmarshal(b[:i], reflect.New(ours.Type()).Interface().(Message))
		}
	}
}

func TestUnmarshal(t *testing.T) {
	unknown := []byte{0x78, 1, 0x79, 1, 2, 3, 4, 5, 6, 7, 8, 0x7a, 1, 'x', 0x7d, 1, 2, 3, 4, 8, 7}
	var r CreateContainerResponse
	if err := Unmarshal(unknown, &r); err != nil || r.Pid != 7 {
		t.Errorf("unknown fields: pid %d, %v", r.Pid, err)
	}
	for _, b := range []string{"\x08", "\x0a\x01x", "\x0a\x05x", "\x0b", "\x79\x01", "\x7d\x01", "\xff"} {
		if err := Unmarshal([]byte(b), &r); err == nil {
			t.Errorf("%q is a message", b)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	b, err := proto.Marshal(&api.CreateContainerRequest{Id: "x", Trees: []*api.Tree{{Mount: -1, Path: "p"}}, Stdio: &api.Stdio{Stdin: []byte("t")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, again CreateContainerRequest
		if Unmarshal(b, &r) != nil {
			return
		}
		b = Marshal(&r)
		if err := Unmarshal(b, &again); err != nil || !bytes.Equal(Marshal(&again), b) {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
	})
}

// fake answers what a test wants; the other calls panic.
type fake struct {
	Agent
	signal func(context.Context, *SignalRequest) (*Empty, error)
}

func (f fake) Signal(ctx context.Context, r *SignalRequest) (*Empty, error) { return f.signal(ctx, r) }

func (f fake) Processes(context.Context, *ProcessesRequest) (*ProcessesResponse, error) {
	return &ProcessesResponse{Processes: List[Process, *Process]{{Pid: 1, Args: "a\xffb"}, {}}}, nil
}

func (f fake) Stats(context.Context, *StatsRequest) (*StatsResponse, error) {
	return nil, errors.New(strings.Repeat("x", maxFrame))
}

// dial serves one connection and returns the client that the host has.
func dial(t *testing.T, a Agent) api.AgentService {
	t.Helper()
	host, guest := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- Serve(context.Background(), guest, a) }()
	c := ttrpc.NewClient(host)
	t.Cleanup(func() {
		c.Close()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return api.NewAgentClient(c)
}

func TestServe(t *testing.T) {
	hold := make(chan struct{})
	a := dial(t, fake{signal: func(ctx context.Context, r *SignalRequest) (*Empty, error) {
		switch r.Signal {
		case 1:
			<-hold
			return &Empty{}, nil
		case 2:
			return nil, &Error{NotFound, errors.New("no \xff such")}
		case 3:
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return nil, errors.New(r.Id)
	}})
	first := make(chan error, 1)
	go func() {
		_, err := a.Signal(t.Context(), &api.SignalRequest{Signal: 1})
		first <- err
	}()
	// While that call is being answered.
	for _, c := range []struct {
		signal uint32
		code   codes.Code
		text   string
	}{{2, codes.NotFound, "no \uFFFD such"}, {9, codes.Unknown, "id"}} {
		_, err := a.Signal(t.Context(), &api.SignalRequest{Id: "id", Signal: c.signal})
		if s, ok := gstatus.FromError(err); !ok || s.Code() != c.code || s.Message() != c.text {
			t.Errorf("signal %d: %v", c.signal, err)
		}
	}
	close(hold)
	if err := <-first; err != nil {
		t.Error(err)
	}
	r, err := a.Processes(t.Context(), &api.ProcessesRequest{})
	if err != nil || len(r.Processes) != 2 || r.Processes[0].Pid != 1 || r.Processes[0].Args != "a\uFFFDb" {
		t.Errorf("processes: %v, %v", r, err)
	}
	if _, err := a.Stats(t.Context(), &api.StatsRequest{}); err == nil || len(err.Error()) < maxText {
		t.Errorf("long error: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := a.Signal(ctx, &api.SignalRequest{Signal: 3}); err == nil {
		t.Error("a call outlived its time")
	}
}

func TestUnimplemented(t *testing.T) {
	host, guest := net.Pipe()
	go func() { _ = Serve(context.Background(), guest, fake{}) }()
	c := ttrpc.NewClient(host)
	defer c.Close()
	for _, name := range [][2]string{{service, "Nothing"}, {"other", "Signal"}} {
		err := c.Call(t.Context(), name[0], name[1], &api.Empty{}, &api.Empty{})
		if gstatus.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestServeErrors(t *testing.T) {
	long := binary.BigEndian.AppendUint32(nil, maxFrame+1)
	for _, in := range [][]byte{append(long, 0, 0, 0, 1, typeRequest, 0), {0, 0, 0}, {0, 0, 0, 9, 0, 0, 0, 1, typeRequest, 0, 1}} {
		if err := Serve(t.Context(), readWriter{bytes.NewReader(in)}, fake{}); err == nil {
			t.Errorf("%v: no error", in)
		}
	}
}

// readWriter throws away what is written.
type readWriter struct{ *bytes.Reader }

func (readWriter) Write(b []byte) (int, error) { return len(b), nil }
