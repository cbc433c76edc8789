package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// process is what the kernel says of this process.
func (f facts) process() {
	f["args"] = strings.Join(os.Args, " ")
	cwd, err := os.Getwd()
	if err != nil {
		cwd = reason(err)
	}
	f["cwd"] = cwd
	env := os.Environ()
	f["env"] = strings.Join(env, "\n")
	f["pid"] = strconv.Itoa(os.Getpid())
	f["umask"] = fmt.Sprintf("%#o", unix.Umask(0))
	interesting := []string{"Uid", "Gid", "Groups", "NSpid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "SigBlk"}
	f.fields("/proc/self/status", func(key string) bool { return slices.Contains(interesting, key) })
	for _, name := range []string{"oom_score_adj", "personality", "uid_map", "gid_map", "setgroups", "timens_offsets", "comm"} {
		f["self "+name] = read("/proc/self/" + name)
	}
	f["nice"] = answer(unix.Getpriority(unix.PRIO_PROCESS, 0))
	policy, err := unix.SchedGetAttr(0, 0)
	if err == nil {
		f["scheduler"] = fmt.Sprintf("policy %d nice %d priority %d flags %#x", policy.Policy, policy.Nice, policy.Priority, policy.Flags)
	}
	ioprio, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, 0, 0)
	f["ioprio"] = fmt.Sprintf("%#x %d", ioprio, errno)
	// Go has raised its own limit of open files, but no child's.
	if out, err := exec.Command("/bin/cat", "/proc/self/limits").Output(); err == nil {
		for line := range strings.Lines(string(out)) {
			if name := strings.TrimSpace(line[:min(len(line), 26)]); name != "Limit" {
				f["limit "+name] = strings.Join(strings.Fields(line[min(len(line), 26):]), " ")
			}
		}
	}
}

func answer(n int, err error) string {
	if err != nil {
		return reason(err)
	}
	return strconv.Itoa(n)
}

// fields adds lines of the form "Key:\tvalue" of a file.
func (f facts) fields(path string, want func(string) bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		f[path] = reason(err)
		return
	}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, ":"); ok && want(key) {
			f["status "+key] = strings.Join(strings.Fields(value), " ")
		}
	}
}

// files are the open descriptors.
func (f facts) files() {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		f["fds"] = reason(err)
		return
	}
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasPrefix(target, "anon_inode:") || strings.HasPrefix(target, "/sys/fs/cgroup/") || strings.HasSuffix(target, "/fd") {
			continue // Go's poller, where it learns how many CPUs it has, and what is being read
		}
		kind, _, _ := strings.Cut(target, ":")
		f["fd "+e.Name()] = kind
	}
}

// mounts are those of /proc/self/mountinfo (proc_pid_mountinfo(5)), in order.
func (f facts) mounts() {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		f["mounts"] = reason(err)
		return
	}
	seen := map[string]int{}
	for line := range strings.Lines(string(data)) {
		before, after, _ := strings.Cut(strings.TrimSpace(line), " - ")
		b, a := strings.Fields(before), strings.Fields(after)
		if len(b) < 6 || len(a) < 3 {
			continue
		}
		options := strings.Split(b[5], ",")
		slices.Sort(options)
		var propagation []string
		for _, p := range b[6:] {
			kind, _, _ := strings.Cut(p, ":")
			propagation = append(propagation, kind)
		}
		key := "mount " + b[4]
		if seen[key]++; seen[key] > 1 {
			key += fmt.Sprintf(" #%d", seen[key])
		}
		f[key] = strings.Join(options, ",")
		f[key+" type"] = a[0]
		f[key+" source"] = a[1]
		f[key+" root"] = filepath.Base(b[3])
		f[key+" super"] = a[2]
		f[key+" propagation"] = strings.Join(propagation, " ")
	}
}

// system is what belongs to the namespaces.
func (f facts) system() {
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		f["hostname"] = unix.ByteSliceToString(u.Nodename[:])
		f["domainname"] = unix.ByteSliceToString(u.Domainname[:])
		f["machine"] = unix.ByteSliceToString(u.Machine[:])
	}
	for _, s := range []string{
		"net/ipv4/ip_forward", "net/ipv4/ip_unprivileged_port_start", "net/ipv4/ping_group_range", "net/core/somaxconn",
		"net/ipv4/tcp_keepalive_time", "net/ipv6/conf/all/disable_ipv6",
		"kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shm_rmid_forced", "fs/mqueue/msg_max", "fs/mqueue/queues_max",
		"kernel/domainname", "kernel/hostname",
	} {
		f["sysctl "+s] = read("/proc/sys/" + s)
	}
	data, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		f["interfaces"] = reason(err)
	}
	var names []string
	for line := range bytes.Lines(data) {
		if name, _, ok := strings.Cut(string(line), ":"); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	f["interfaces"] = strings.Join(names, " ")
	f["processes"] = strconv.Itoa(len(processes()))
}

// processes lists the pids in /proc.
func processes() []string {
	entries, _ := os.ReadDir("/proc") // without one there are none
	var pids []string
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, e.Name())
		}
	}
	return pids
}

// groups are the limits of the control groups, by what they mean: a host's may be
// v1 and a guest's is v2.
func (f facts) groups() {
	for name, files := range map[string][2]string{
		"memory":     {"memory/memory.limit_in_bytes", "memory.max"},
		"memory low": {"memory/memory.soft_limit_in_bytes", "memory.low"},
		"pids":       {"pids/pids.max", "pids.max"},
		"cpuset":     {"cpuset/cpuset.cpus", "cpuset.cpus"},
	} {
		for _, file := range files {
			b, err := os.ReadFile("/sys/fs/cgroup/" + file)
			if err != nil {
				continue
			}
			value := strings.TrimSpace(string(b))
			if n, err := strconv.ParseUint(value, 10, 64); err == nil && n >= 1<<62 {
				value = "max"
			}
			f["cgroup "+name] = value
		}
	}
	f["cgroup cpu"] = cpuLimit()
}

// cpuLimit is quota and period, in microseconds.
func cpuLimit() string {
	if b, err := os.ReadFile("/sys/fs/cgroup/cpu.max"); err == nil {
		return strings.TrimSpace(string(b))
	}
	quota, err1 := os.ReadFile("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
	period, err2 := os.ReadFile("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
	if err1 != nil || err2 != nil {
		return ""
	}
	q := strings.TrimSpace(string(quota))
	if q == "-1" {
		q = "max"
	}
	return q + " " + strings.TrimSpace(string(period))
}
