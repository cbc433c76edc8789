package rpc

// The fields of the messages by their numbers in agent.proto.

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
func (m *AddMemoryRequest) fields() []any       { return []any{1: &m.Address, 2: &m.Bytes} }
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
