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

// AddMemoryRequest is the message of that name.
type AddMemoryRequest struct {
	Address uint64
	Bytes   uint64
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
