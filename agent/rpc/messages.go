package rpc

// The messages of agent.proto, which says what their fields mean. A test compares
// them with the code that protoc makes of it.

// Empty is the message of that name.
type Empty struct {
}

// ConfigureRequest is the message of that name.
type ConfigureRequest struct {
	UnixNanos  int64
	Entropy    []byte
	StreamPort uint32
	Hostname   string
	Disks      bool
}

// ConfigureResponse is the message of that name.
type ConfigureResponse struct {
	KernelRelease string
	AgentVersion  string
	BootNanos     int64
	Features      []byte
	Disks         List[Disk, *Disk]
}

// Disk is the message of that name.
type Disk struct {
	Serial string
	Major  uint32
	Minor  uint32
}

// Tree is the message of that name.
type Tree struct {
	Mount int32
	Path  string
	Guest string
	Node  Node
}

// Node is the message of that name.
type Node struct {
	Mode  uint32
	Uid   uint32
	Gid   uint32
	Major uint32
	Minor uint32
}

// Stdio is the message of that name.
type Stdio struct {
	Stdin  []byte
	Stdout []byte
	Stderr []byte
	Extra  List[File, *File]
}

// File is the message of that name.
type File struct {
	Token  []byte
	Reads  bool
	Writes bool
}

// CreateContainerRequest is the message of that name.
type CreateContainerRequest struct {
	Id           string
	Spec         []byte
	Trees        List[Tree, *Tree]
	Stdio        Stdio
	Rows         uint32
	Cols         uint32
	DeviceFilter []byte
	Seccomp      []byte
	SeccompFlags uint32
	NoNewKeyring bool
	Notify       bool
	Network      Network
	Listener     []byte
}

// Network is the message of that name.
type Network struct {
	Cards    List[Card, *Card]
	Sysctls  List[Sysctl, *Sysctl]
	Messages []byte
	Resolver bool
}

// Card is the message of that name.
type Card struct {
	Address   []byte
	Name      string
	Index     uint32
	Unplugged bool
}

// Sysctl is the message of that name.
type Sysctl struct {
	Name  string
	Value string
}

// ChangeNetworkRequest is the message of that name.
type ChangeNetworkRequest struct {
	Id      string
	Network Network
}

// CreateContainerResponse is the message of that name.
type CreateContainerResponse struct {
	Pid uint32
}

// StartContainerRequest is the message of that name.
type StartContainerRequest struct {
	Id string
}

// ExecRequest is the message of that name.
type ExecRequest struct {
	Id           string
	ExecId       string
	Process      []byte
	Stdio        Stdio
	Rows         uint32
	Cols         uint32
	Seccomp      []byte
	SeccompFlags uint32
	Cgroup       string
	Listener     []byte
}

// ExecResponse is the message of that name.
type ExecResponse struct {
	Pid uint32
}

// SignalRequest is the message of that name.
type SignalRequest struct {
	Id     string
	ExecId string
	Signal uint32
	All    bool
}

// ResizeRequest is the message of that name.
type ResizeRequest struct {
	Id     string
	ExecId string
	Rows   uint32
	Cols   uint32
}

// WaitRequest is the message of that name.
type WaitRequest struct {
	Id     string
	ExecId string
}

// WaitResponse is the message of that name.
type WaitResponse struct {
	Status      uint32
	OomKilled   bool
	StdoutBytes uint64
	StderrBytes uint64
	Extra       List[Written, *Written]
}

// Written is the message of that name.
type Written struct {
	Bytes uint64
}

// ReadyRequest is the message of that name.
type ReadyRequest struct {
	Id string
}

// ProcessesRequest is the message of that name.
type ProcessesRequest struct {
	Id string
}

// Process is the message of that name.
type Process struct {
	Pid          uint32
	Ppid         uint32
	ContainerPid uint32
	Uid          uint32
	Comm         string
	Args         string
	Tty          uint32
	ElapsedMs    uint64
	CpuMs        uint64
	Stat         string
	Nice         int32
	Threads      uint32
	Rss          uint64
	Vsize        uint64
	Pgid         uint32
	Sid          uint32
	Memory       uint32
}

// ProcessesResponse is the message of that name.
type ProcessesResponse struct {
	Processes List[Process, *Process]
}

// FreezeRequest is the message of that name.
type FreezeRequest struct {
	Id        string
	Frozen    bool
	UnixNanos int64
}

// UpdateRequest is the message of that name.
type UpdateRequest struct {
	Id          string
	Resources   []byte
	CheckMemory bool
}

// MetricsRequest is the message of that name.
type MetricsRequest struct {
	Id string
}

// MetricsResponse is the message of that name.
type MetricsResponse struct {
	Files List[MetricFile, *MetricFile]
}

// MetricFile is the message of that name.
type MetricFile struct {
	Name    string
	Content []byte
}

// AwaitOOMRequest is the message of that name.
type AwaitOOMRequest struct {
	Id   string
	Seen uint64
}

// AwaitOOMResponse is the message of that name.
type AwaitOOMResponse struct {
	Killed uint64
	Ended  bool
}

// DeleteContainerRequest is the message of that name.
type DeleteContainerRequest struct {
	Id string
}

// StatsRequest is the message of that name.
type StatsRequest struct {
}

// StatsResponse is the message of that name.
type StatsResponse struct {
	MemTotal     uint64
	MemAvailable uint64
	AgentRss     uint64
}

// ListenSocketRequest is the message of that name.
type ListenSocketRequest struct {
	Node  uint64
	Kind  uint32
	Token []byte
}

// CloseSocketRequest is the message of that name.
type CloseSocketRequest struct {
	Node uint64
}

// ConnectSocketRequest is the message of that name.
type ConnectSocketRequest struct {
	Node  uint64
	Kind  uint32
	Token []byte
	Uid   uint32
	Gid   uint32
	Probe bool
}

// BindingSocketRequest is the message of that name.
type BindingSocketRequest struct {
	Thread uint32
}

// BindingSocketResponse is the message of that name.
type BindingSocketResponse struct {
	Kind uint32
}

// WatchesRequest is the message of that name.
type WatchesRequest struct {
}

// WatchesResponse is the message of that name.
type WatchesResponse struct {
	Nodes  []byte
	Thread uint32
}

// RepeatRequest is the message of that name.
type RepeatRequest struct {
	Kind  uint32
	Dir   string
	Name  string
	ToDir string
	To    string
	Mode  uint32
}

// DrainSocketsRequest is the message of that name.
type DrainSocketsRequest struct {
}

func (*Empty) fields() []any { return nil }

func (m *ConfigureRequest) fields() []any {
	return []any{1: &m.UnixNanos, 2: &m.Entropy, 3: &m.StreamPort, 4: &m.Hostname, 5: &m.Disks}
}

func (m *ConfigureResponse) fields() []any {
	return []any{1: &m.KernelRelease, 2: &m.AgentVersion, 3: &m.BootNanos, 4: &m.Features, 5: &m.Disks}
}

func (m *Disk) fields() []any { return []any{1: &m.Serial, 2: &m.Major, 3: &m.Minor} }

func (m *Tree) fields() []any {
	return []any{1: &m.Mount, 2: &m.Path, 3: &m.Guest, 4: &m.Node}
}

func (m *Node) fields() []any {
	return []any{1: &m.Mode, 2: &m.Uid, 3: &m.Gid, 4: &m.Major, 5: &m.Minor}
}

func (m *Stdio) fields() []any {
	return []any{1: &m.Stdin, 2: &m.Stdout, 3: &m.Stderr, 4: &m.Extra}
}

func (m *File) fields() []any { return []any{1: &m.Token, 2: &m.Reads, 3: &m.Writes} }

func (m *CreateContainerRequest) fields() []any {
	return []any{1: &m.Id, 2: &m.Spec, 3: &m.Trees, 4: &m.Stdio, 5: &m.Rows, 6: &m.Cols, 7: &m.DeviceFilter, 8: &m.Seccomp, 9: &m.SeccompFlags, 11: &m.NoNewKeyring, 12: &m.Notify, 13: &m.Network, 14: &m.Listener}
}

func (m *Network) fields() []any {
	return []any{1: &m.Cards, 2: &m.Sysctls, 3: &m.Messages, 4: &m.Resolver}
}

func (m *Card) fields() []any {
	return []any{1: &m.Address, 2: &m.Name, 3: &m.Index, 4: &m.Unplugged}
}

func (m *Sysctl) fields() []any               { return []any{1: &m.Name, 2: &m.Value} }
func (m *ChangeNetworkRequest) fields() []any { return []any{1: &m.Id, 2: &m.Network} }

func (m *CreateContainerResponse) fields() []any { return []any{1: &m.Pid} }

func (m *StartContainerRequest) fields() []any { return []any{1: &m.Id} }

func (m *ExecRequest) fields() []any {
	return []any{1: &m.Id, 2: &m.ExecId, 3: &m.Process, 4: &m.Stdio, 5: &m.Rows, 6: &m.Cols, 7: &m.Seccomp, 8: &m.SeccompFlags, 9: &m.Cgroup, 10: &m.Listener}
}

func (m *ExecResponse) fields() []any { return []any{1: &m.Pid} }

func (m *SignalRequest) fields() []any { return []any{1: &m.Id, 2: &m.ExecId, 3: &m.Signal, 4: &m.All} }

func (m *ResizeRequest) fields() []any { return []any{1: &m.Id, 2: &m.ExecId, 3: &m.Rows, 4: &m.Cols} }

func (m *WaitRequest) fields() []any { return []any{1: &m.Id, 2: &m.ExecId} }

func (m *WaitResponse) fields() []any {
	return []any{1: &m.Status, 2: &m.OomKilled, 3: &m.StdoutBytes, 4: &m.StderrBytes, 5: &m.Extra}
}

func (m *Written) fields() []any { return []any{1: &m.Bytes} }

func (m *ReadyRequest) fields() []any { return []any{1: &m.Id} }

func (m *ProcessesRequest) fields() []any { return []any{1: &m.Id} }

func (m *Process) fields() []any {
	return []any{
		1: &m.Pid, 2: &m.Ppid, 3: &m.ContainerPid, 4: &m.Uid, 5: &m.Comm, 6: &m.Args, 7: &m.Tty, 8: &m.ElapsedMs,
		9: &m.CpuMs, 10: &m.Stat, 11: &m.Nice, 12: &m.Threads, 13: &m.Rss, 14: &m.Vsize, 15: &m.Pgid, 16: &m.Sid,
		17: &m.Memory,
	}
}

func (m *ProcessesResponse) fields() []any { return []any{1: &m.Processes} }

func (m *FreezeRequest) fields() []any          { return []any{1: &m.Id, 2: &m.Frozen, 3: &m.UnixNanos} }
func (m *UpdateRequest) fields() []any          { return []any{1: &m.Id, 2: &m.Resources, 3: &m.CheckMemory} }
func (m *MetricsRequest) fields() []any         { return []any{1: &m.Id} }
func (m *MetricsResponse) fields() []any        { return []any{1: &m.Files} }
func (m *MetricFile) fields() []any             { return []any{1: &m.Name, 2: &m.Content} }
func (m *AwaitOOMRequest) fields() []any        { return []any{1: &m.Id, 2: &m.Seen} }
func (m *AwaitOOMResponse) fields() []any       { return []any{1: &m.Killed, 2: &m.Ended} }
func (m *DeleteContainerRequest) fields() []any { return []any{1: &m.Id} }

func (m *ListenSocketRequest) fields() []any {
	return []any{1: &m.Node, 2: &m.Kind, 3: &m.Token}
}

func (m *CloseSocketRequest) fields() []any { return []any{1: &m.Node} }

func (m *ConnectSocketRequest) fields() []any {
	return []any{1: &m.Node, 2: &m.Kind, 3: &m.Token, 4: &m.Uid, 5: &m.Gid, 6: &m.Probe}
}

func (m *BindingSocketRequest) fields() []any  { return []any{1: &m.Thread} }
func (m *BindingSocketResponse) fields() []any { return []any{1: &m.Kind} }

func (*DrainSocketsRequest) fields() []any { return nil }

func (*WatchesRequest) fields() []any { return nil }

func (m *WatchesResponse) fields() []any { return []any{1: &m.Nodes, 2: &m.Thread} }

func (m *RepeatRequest) fields() []any {
	return []any{1: &m.Kind, 2: &m.Dir, 3: &m.Name, 4: &m.ToDir, 5: &m.To, 6: &m.Mode}
}

func (*StatsRequest) fields() []any { return nil }

func (m *StatsResponse) fields() []any {
	return []any{1: &m.MemTotal, 2: &m.MemAvailable, 3: &m.AgentRss}
}
