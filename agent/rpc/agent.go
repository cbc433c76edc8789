package rpc

import "context"

// service is the full name of the service in agent.proto.
const service = "runv.agent.v1.Agent"

// Agent answers the calls of agent.proto, which says what each does.
type Agent interface {
	Configure(context.Context, *ConfigureRequest) (*ConfigureResponse, error)
	CreateContainer(context.Context, *CreateContainerRequest) (*CreateContainerResponse, error)
	StartContainer(context.Context, *StartContainerRequest) (*Empty, error)
	Exec(context.Context, *ExecRequest) (*ExecResponse, error)
	Signal(context.Context, *SignalRequest) (*Empty, error)
	Resize(context.Context, *ResizeRequest) (*Empty, error)
	Wait(context.Context, *WaitRequest) (*WaitResponse, error)
	Ready(context.Context, *ReadyRequest) (*Empty, error)
	Processes(context.Context, *ProcessesRequest) (*ProcessesResponse, error)
	Freeze(context.Context, *FreezeRequest) (*Empty, error)
	AddMemory(context.Context, *AddMemoryRequest) (*Empty, error)
	Update(context.Context, *UpdateRequest) (*Empty, error)
	Metrics(context.Context, *MetricsRequest) (*MetricsResponse, error)
	AwaitOOM(context.Context, *AwaitOOMRequest) (*AwaitOOMResponse, error)
	ChangeNetwork(context.Context, *ChangeNetworkRequest) (*Empty, error)
	DeleteContainer(context.Context, *DeleteContainerRequest) (*Empty, error)
	ListenSocket(context.Context, *ListenSocketRequest) (*Empty, error)
	CloseSocket(context.Context, *CloseSocketRequest) (*Empty, error)
	ConnectSocket(context.Context, *ConnectSocketRequest) (*Empty, error)
	BindingSocket(context.Context, *BindingSocketRequest) (*BindingSocketResponse, error)
	DrainSockets(context.Context, *DrainSocketsRequest) (*Empty, error)
	Watches(context.Context, *WatchesRequest) (*WatchesResponse, error)
	Repeat(context.Context, *RepeatRequest) (*Empty, error)
	Stats(context.Context, *StatsRequest) (*StatsResponse, error)
}

// dispatch makes one call.
func dispatch(ctx context.Context, a Agent, method string, payload []byte) ([]byte, error) {
	switch method {
	case "Configure":
		return call(ctx, payload, a.Configure)
	case "CreateContainer":
		return call(ctx, payload, a.CreateContainer)
	case "StartContainer":
		return call(ctx, payload, a.StartContainer)
	case "Exec":
		return call(ctx, payload, a.Exec)
	case "Signal":
		return call(ctx, payload, a.Signal)
	case "Resize":
		return call(ctx, payload, a.Resize)
	case "Wait":
		return call(ctx, payload, a.Wait)
	case "Ready":
		return call(ctx, payload, a.Ready)
	case "Processes":
		return call(ctx, payload, a.Processes)
	case "Freeze":
		return call(ctx, payload, a.Freeze)
	case "AddMemory":
		return call(ctx, payload, a.AddMemory)
	case "Update":
		return call(ctx, payload, a.Update)
	case "Metrics":
		return call(ctx, payload, a.Metrics)
	case "AwaitOOM":
		return call(ctx, payload, a.AwaitOOM)
	case "ChangeNetwork":
		return call(ctx, payload, a.ChangeNetwork)
	case "DeleteContainer":
		return call(ctx, payload, a.DeleteContainer)
	case "ListenSocket":
		return call(ctx, payload, a.ListenSocket)
	case "CloseSocket":
		return call(ctx, payload, a.CloseSocket)
	case "ConnectSocket":
		return call(ctx, payload, a.ConnectSocket)
	case "BindingSocket":
		return call(ctx, payload, a.BindingSocket)
	case "DrainSockets":
		return call(ctx, payload, a.DrainSockets)
	case "Watches":
		return call(ctx, payload, a.Watches)
	case "Repeat":
		return call(ctx, payload, a.Repeat)
	case "Stats":
		return call(ctx, payload, a.Stats)
	}
	return nil, Errorf(Unimplemented, "method %s", method)
}

func call[Q, R any, PQ interface {
	*Q
	Message
}, PR interface {
	*R
	Message
}](ctx context.Context, payload []byte, f func(context.Context, PQ) (PR, error)) ([]byte, error) {
	q := PQ(new(Q))
	if err := Unmarshal(payload, q); err != nil {
		return nil, Errorf(InvalidArgument, "request: %w", err)
	}
	r, err := f(ctx, q)
	if err != nil {
		return nil, err
	}
	return Marshal(r), nil
}
