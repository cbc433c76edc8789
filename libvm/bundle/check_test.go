package bundle

import (
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runv/libvm/apparmor"
)

// edit replaces one part of the config that is fine.
type edit struct{ from, to string }

// What is wrong with a config.json, and what is said about it. Where runc 1.1
// has words for it, they are these.
func TestRefused(t *testing.T) {
	const process = `{"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}}`
	inRoot := func(more string) edit { return edit{`"linux": {`, more + `, "linux": {`} }
	inProcess := func(more string) edit { return edit{`"cwd": "/"`, `"cwd": "/", ` + more} }
	inLinux := func(more string) edit { return edit{`"linux": {`, `"linux": {` + more + `, `} }
	inMounts := func(m string) edit { return edit{`"mounts": [`, `"mounts": [` + m + `, `} }
	inResources := func(more string) edit { return edit{`"resources": {`, `"resources": {` + more + `, `} }
	withNamespace := func(ns string) edit { return edit{`{"type": "pid"}`, `{"type": "pid"}, ` + ns} }
	tests := []struct {
		name string
		edit edit
		want string
	}{
		{"no process", edit{process, "null"}, "process property must not be empty"},
		{"empty process", edit{process, "{}"}, "Cwd property must not be empty"},
		{"no args", edit{`["sh"]`, `[]`}, "args must not be empty"},
		{"relative cwd", edit{`"cwd": "/"`, `"cwd": "tmp"`}, "Cwd must be an absolute path"},
		{"nul in cwd", edit{`"cwd": "/"`, `"cwd": "/\u0000"`}, "process.cwd"},
		{"nul in args", edit{`["sh"]`, `["sh", "a\u0000"]`}, "process.args[1]"},
		{"env without =", inProcess(`"env": ["A=b", "C"]`), `process.env[1]: invalid environment variable "C": missing '='`},
		{"env without name", inProcess(`"env": ["=b"]`), "name cannot be empty"},
		{"env with nul", inProcess(`"env": ["A=\u0000"]`), "contains nul byte"},
		{"rlimit type", inProcess(`"rlimits": [{"type": "RLIMIT_X", "hard": 1, "soft": 1}]`), "process.rlimits[0]: wrong rlimit value: RLIMIT_X"},
		{"rlimit twice", inProcess(`"rlimits": [{"type": "RLIMIT_CPU", "hard": 1, "soft": 1}, {"type": "RLIMIT_CPU", "hard": 1, "soft": 1}]`), "process.rlimits[1]: duplicate type RLIMIT_CPU"},
		{"rlimit order", inProcess(`"rlimits": [{"type": "RLIMIT_CPU", "hard": 1, "soft": 2}]`), "soft limit 2 is above the hard limit 1"},
		{"console size", inProcess(`"consoleSize": {"height": 70000, "width": 1}`), "process.consoleSize 1x70000"},
		{"uid out of range", edit{`"uid": 0`, `"uid": 2147483648`}, "uids and gids must be in range 0-2147483647"},
		{"gids out of range", edit{`"gid": 0`, `"gid": 0, "additionalGids": [1, 4294967295]`}, "uids and gids must be in range 0-2147483647"},
		{"oom score", inProcess(`"oomScoreAdj": 1001`), "process.oomScoreAdj 1001: want -1000 to 1000"},
		{"scheduler without policy", inProcess(`"scheduler": {"nice": 1}`), "process.scheduler: scheduler policy is required"},
		{"scheduler policy", inProcess(`"scheduler": {"policy": "SCHED_X"}`), "invalid scheduler policy: SCHED_X"},
		{"scheduler of no kernel", inProcess(`"scheduler": {"policy": "SCHED_ISO"}`), "SCHED_ISO is not in the Linux kernel"},
		{"scheduler nice", inProcess(`"scheduler": {"policy": "SCHED_BATCH", "nice": 20}`), "invalid scheduler.nice: 20 when scheduler.policy is SCHED_BATCH"},
		{"scheduler priority", inProcess(`"scheduler": {"policy": "SCHED_OTHER", "priority": 1}`), "scheduler.priority can only be specified for SchedFIFO or SchedRR policy"},
		{"scheduler deadline", inProcess(`"scheduler": {"policy": "SCHED_RR", "priority": 1, "deadline": 1}`), "can only be specified for SchedDeadline policy"},
		{"scheduler flag", inProcess(`"scheduler": {"policy": "SCHED_OTHER", "flags": ["X"]}`), "invalid scheduler flag: X"},
		{"I/O priority", inProcess(`"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}`), "process.ioPriority: invalid ioPriority.Priority: 8"},
		{"I/O class", inProcess(`"ioPriority": {"class": "IOPRIO_CLASS_X"}`), `invalid ioPriority.Class: "IOPRIO_CLASS_X"`},
		{"initial affinity", inProcess(`"execCPUAffinity": {"initial": "x"}`), "process.execCPUAffinity: bad CPUAffinity.Initial: "},
		{"final affinity", inProcess(`"execCPUAffinity": {"initial": "0", "final": "1-0"}`), "bad CPUAffinity.Final: invalid range: 1-0"},
		{"hook with a relative path", inRoot(`"hooks": {"prestart": [{"path": "/a"}, {"path": "b"}]}`), `hooks.prestart[1]: path "b" is not absolute`},
		{"hook without a path", inRoot(`"hooks": {"poststop": [{}]}`), `hooks.poststop[0]: path "" is not absolute`},
		{"hook with nul", inRoot(`"hooks": {"createRuntime": [{"path": "/a", "args": ["\u0000"]}]}`), "hooks.createRuntime[0]: \"\\x00\" contains nul byte"},
		{"hook with env", inRoot(`"hooks": {"createContainer": [{"path": "/a", "env": ["A"]}]}`), `hooks.createContainer[0]: invalid environment variable "A"`},
		{"hook with timeout", inRoot(`"hooks": {"startContainer": [{"path": "/a", "timeout": 0}]}`), "hooks.startContainer[0]: timeout of 0 s"},
		{"hook with a long timeout", inRoot(`"hooks": {"poststart": [{"path": "/a", "timeout": 10000000000}]}`), "hooks.poststart[0]: timeout of 10000000000 s"},
		{"no root", edit{`{"path": "rootfs"}`, "null"}, "root must be specified"},
		{"no root path", edit{`"rootfs"`, `""`}, "root.path must not be empty"},
		{"missing rootfs", edit{`"rootfs"`, `"none"`}, "none: no such file or directory"},
		{"rootfs is a device", edit{`"rootfs"`, `"/dev/null"`}, "invalid rootfs: /dev/null is a device, which is not supported as a root"},
		{"rootfs is a file", edit{`"rootfs"`, `"config.json"`}, "config.json is not a directory"},
		{"mount without destination", inMounts(`{"type": "tmpfs"}`), "mounts[0] (): destination must not be empty"},
		{"mount of what a program serves", inMounts(`{"destination": "/x", "type": "fuse"}`), `mounts[0] (/x): type "fuse" is not supported`},
		{"mount over a descriptor", inMounts(`{"destination": "/x", "type": "9p", "options": ["ro", "trans=fd", "rfdno=5"]}`), `option rfdno=5 is not supported`},
		{"mount with nul", inMounts(`{"destination": "/x\u0000", "type": "tmpfs"}`), "mount field contains null byte"},
		{"mount with idmap", inMounts(`{"destination": "/x", "type": "bind", "source": "/", "options": ["bind", "ridmap"]}`), "id-mapped mounts must have both uid and gid mappings specified"},
		{"mount with crun's idmap", inMounts(`{"destination": "/x", "type": "bind", "source": "/", "options": ["bind", "idmap=uids=0-1-10"]}`), "option idmap=uids=0-1-10 is not supported: give the mappings"},
		{"idmap of a tmpfs", inMounts(`{"destination": "/x", "type": "tmpfs", "options": ["idmap"]}`), "id-mapped mounts are only supported for bind-mounts"},
		{"idmap of gids alone", inMounts(`{"destination": "/x", "type": "bind", "source": "/", "options": ["bind"], "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}`), "id-mapped mounts must have both uid and gid mappings specified"},
		{"idmap that overlaps", inMounts(`{"destination": "/x", "source": "/", "options": ["bind"], "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}],
			"uidMappings": [{"containerID": 0, "hostID": 1, "size": 5}, {"containerID": 9, "hostID": 3, "size": 1}]}`), "uidMappings[1] overlaps with [0]"},
		{"bind of nothing", inMounts(`{"destination": "/x", "type": "bind", "options": ["bind"]}`), "bind without a source"},
		{"bind of what is missing", inMounts(`{"destination": "/x", "type": "bind", "source": "/nosuch", "options": ["bind"]}`), `error mounting "/nosuch" to rootfs at "/x": stat /nosuch: no such file or directory`},
		{"namespace twice", withNamespace(`{"type": "pid"}`), `malformed spec file: duplicated ns "pid"`},
		{"unknown namespace", withNamespace(`{"type": "foo"}`), `namespace "foo" does not exist`},
		{"offsets without time namespace", inLinux(`"timeOffsets": {"monotonic": {"secs": 1}}`), "time namespace offsets specified, but time namespace isn't enabled in the config"},
		{"offset of another clock", edit{`"linux": {"namespaces": [`, `"linux": {"timeOffsets": {"realtime": {"secs": 1}}, "namespaces": [{"type": "time"}, `}, `linux.timeOffsets: no clock "realtime"`},
		{"offset of too many ns", edit{`"linux": {"namespaces": [`, `"linux": {"timeOffsets": {"boottime": {"nanosecs": 1000000000}}, "namespaces": [{"type": "time"}, `}, "linux.timeOffsets.boottime: 1000000000 ns"},
		{"relative path", edit{`{"type": "ipc"}`, `{"type": "ipc", "path": "ns/ipc"}`}, `ipc: path "ns/ipc" is not absolute`},
		{"missing path", edit{`{"type": "ipc"}`, `{"type": "ipc", "path": "/none"}`}, "linux.namespaces: ipc: stat /none: no such file or directory"},
		{"user namespace by path", withNamespace(`{"type": "user", "path": "/proc/self/ns/user"}`), "the guest's ids are its own"},
		{"time namespace by path", withNamespace(`{"type": "time", "path": "/proc/self/ns/time"}`), "the guest's clocks are its own"},
		{"masked paths of the host", edit{`"linux": {"namespaces": ` + namespaces, `"linux": {"maskedPaths": ["/proc/kcore"], "namespaces": []`}, "unable to restrict sys entries without a private MNT namespace"},
		{"sysctl of the host's ipc", edit{`{"type": "ipc"}, `, `{"type": "cgroup"}], "sysctl": {"kernel.msgmax": "1"}, "x": [`}, "not allowed in the hosts ipc namespace"},
		{"missing network", edit{`{"type": "network"}`, `{"type": "network", "path": "/run/netns/nosuch"}`}, "/run/netns/nosuch: no such file or directory"},
		{"relative network", edit{`{"type": "network"}`, `{"type": "network", "path": "x"}`}, "is not absolute"},
		{"mapping without namespace", inLinux(`"uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]`), "User namespace mappings specified, but USER namespace isn't enabled in the config"},
		{"namespace without mapping", withNamespace(`{"type": "user"}`), "User namespaces enabled, but no uid mappings found."},
		{"sysctl of the host", inLinux(`"sysctl": {"vm.swappiness": "1"}`), `sysctl "vm.swappiness" is not in a separate kernel namespace`},
		{"sysctl hostname", inLinux(`"sysctl": {"kernel/hostname": "x"}`), `sysctl "kernel.hostname" is not allowed as it conflicts with the OCI "hostname" field`},
		{"sysctl that climbs", inLinux(`"sysctl": {"net/../kernel/core_pattern": "x"}`), "is malformed"},
		{"sysctl with a hole", inLinux(`"sysctl": {"net..x": "x"}`), "is malformed"},
		{"device type", inLinux(`"devices": [{"path": "/dev/x", "type": "x"}]`), `linux.devices[0]: invalid device type "x"`},
		{"device path", inLinux(`"devices": [{"path": "dev/x", "type": "c"}]`), `linux.devices[0]: path "dev/x" is not absolute`},
		{"device number", inLinux(`"devices": [{"path": "/dev/x", "type": "c", "major": -1}]`), "no such device number -1:0"},
		{"device mode", inLinux(`"devices": [{"path": "/dev/x", "type": "p", "fileMode": 70000}]`), "is not a mode"},
		{"swap without limit", inResources(`"memory": {"swap": 100}`), "unable to set swap limit without memory limit"},
		{"swap below limit", inResources(`"memory": {"swap": 100, "limit": 200}`), "memory+swap limit should be >= memory limit"},
		{"memory", inResources(`"memory": {"limit": -2}`), "linux.resources.memory.limit: -2 bytes"},
		{"cpus", inResources(`"cpu": {"cpus": "0-x"}`), `linux.resources.cpu.cpus: "0-x" is not a list of numbers`},
		{"quota", inResources(`"cpu": {"quota": -5}`), "linux.resources.cpu.quota: -5"},
		{"pids", inResources(`"pids": {"limit": -5}`), "linux.resources.pids.limit: -5"},
		{"huge pages", inResources(`"hugepageLimits": [{"pageSize": "../x", "limit": 1}]`), `linux.resources.hugepageLimits[0].pageSize: "../x" is not a size`},
		{"realtime", inResources(`"cpu": {"realtimeRuntime": 500}`), "linux.resources.cpu.realtimeRuntime is not supported"},
		{"propagation", inLinux(`"rootfsPropagation": "upwards"`), "rootfsPropagation=upwards is not supported"},
		{"personality", inLinux(`"personality": {"domain": "LINUX64"}`), "invalid personality domain LINUX64"},
		{"cgroup path", inLinux(`"cgroupsPath": "/a\u0000"`), "linux.cgroupsPath"},
		{"masked path", inLinux(`"maskedPaths": ["/a\u0000"]`), "linux.maskedPaths[0]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			good := config(t, "")
			text := strings.Replace(good, tt.edit.from, tt.edit.to, 1)
			if text == good {
				t.Fatalf("%q is not in the config", tt.edit.from)
			}
			_, err := load(t, text)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}

// runc's words come before ours where both have a reason.
func TestNamesWithoutUTS(t *testing.T) {
	for member, want := range map[string]string{
		`"hostname": "x"`:   "unable to set hostname without a private UTS namespace",
		`"domainname": "x"`: "unable to set domainname without a private UTS namespace",
	} {
		text := strings.Replace(config(t, member), `{"type": "uts"}, `, "", 1)
		if _, err := load(t, text); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func TestMappings(t *testing.T) {
	tests := []struct{ name, uid, want string }{
		{"fine", `{"containerID": 0, "hostID": 100000, "size": 1000}, {"containerID": 1000, "hostID": 500, "size": 1}`, ""},
		{"size", `{"containerID": 0, "hostID": 1, "size": 0}`, "linux.uidMappings[0]: size is 0"},
		{"no root", `{"containerID": 1, "hostID": 1, "size": 1}`, "no mapping of id 0"},
		{"overlap inside", `{"containerID": 0, "hostID": 1, "size": 5}, {"containerID": 4, "hostID": 50, "size": 1}`, "linux.uidMappings[1] overlaps with [0]"},
		{"overlap outside", `{"containerID": 0, "hostID": 1, "size": 5}, {"containerID": 5, "hostID": 0, "size": 2}`, "overlaps"},
		{"too far", `{"containerID": 0, "hostID": 4294967295, "size": 2}`, "ids beyond 4294967294"},
		{"too many", strings.Repeat(`{"containerID": 0, "hostID": 0, "size": 1}, `, 340) + `{"containerID": 0, "hostID": 0, "size": 1}`, "341 entries"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(config(t, ""), `{"type": "pid"}`, `{"type": "pid"}, {"type": "user"}`, 1)
			text = strings.Replace(text, `"linux": {`, `"linux": {"uidMappings": [`+tt.uid+`],
				"gidMappings": [{"containerID": 0, "hostID": 0, "size": 10}],`, 1)
			_, err := load(t, text)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestAccepted(t *testing.T) {
	tests := []struct{ name, from, to string }{
		{"sysctls", `"linux": {`, `"linux": {"sysctl": {"kernel.shmmax": "1", "fs.mqueue.msg_max": "10", "kernel.domainname": "d",
			"net/ipv4/conf/eth0.1/forwarding": "1", "net.ipv4.ip_forward": "1"},`},
		{"devices", `"linux": {`, `"linux": {"devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0},
			{"path": "/dev/fifo", "type": "p"}, {"path": "/dev/u", "type": "u", "major": 1, "minor": 3}],`},
		{"limits", `"resources": {`, `"resources": {"memory": {"limit": 1048576, "reservation": 5, "swap": -1},
			"cpu": {"shares": 512, "quota": -1, "period": 1000, "cpus": "0-3,7", "mems": "0"}, "pids": {"limit": -1},`},
		{"personality", `"linux": {`, `"linux": {"personality": {"domain": "LINUX32"}, "rootfsPropagation": "rslave",`},
		{"kernel", `"ociVersion"`, `"vm": {"kernel": {"path": "/boot/vmlinux", "parameters": ["a"]}, "hwConfig": {"vcpus": 2}}, "ociVersion"`},
		{"process", `"cwd": "/"`, `"cwd": "/", "terminal": true, "consoleSize": {"height": 24, "width": 80}, "env": ["A=", "B==c"],
			"rlimits": [{"type": "RLIMIT_NOFILE", "hard": 18446744073709551615, "soft": 1}], "oomScoreAdj": -1000, "apparmorProfile": "unconfined"`},
		{"all mounts", `"mounts": [`, `"mounts": [{"destination": "/a", "type": "tmpfs", "source": "x", "options": ["tmpcopyup", "rro", "rslave", "size=1k"]},
			{"destination": "/b", "type": "cgroup2"}, {"destination": "/c", "type": "overlay", "source": "/", "options": ["rbind"]},`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := load(t, strings.Replace(config(t, ""), tt.from, tt.to, 1))
			if err != nil || len(b.Warnings) > 0 {
				t.Errorf("error %v, bundle %+v; want neither error nor warning", err, b)
			}
		})
	}
}

func TestWhere(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"empty", "", "config.json:1:1: unexpected end of JSON input"},
		{"cut off", "{\n  \"a\": [1,\n", "config.json:2:11: unexpected end of JSON input"},
		{"comma", "{\n  \"a\": 1,\n  }", "config.json:3:3: invalid character '}' looking for beginning of object key string"},
		{"word", "{\"a\": nul}", "config.json:1:10: invalid character '}' in literal null (expecting 'l')"},
		{"trailing", "{}\n{}", "config.json:2:1: invalid character '{' after top-level value"},
		{"type of a version", "{\n \"ociVersion\": 5\n}", "config.json:2:16: ociVersion: cannot use number as a string"},
		{"type deep inside", "{\"process\": {\"user\": {\"uid\": \"root\"}}}", "config.json:1:35: process.user.uid: cannot use string as a number (uint32)"},
		{"negative", "{\"process\": {\"user\": {\"uid\": -1}}}", "process.user.uid: cannot use number -1 as a number (uint32)"},
		{"object", "{\"mounts\": {}}", "mounts: cannot use object as an array"},
		{"top", "[]", "cannot use array as an object"},
		{"null", "null", "ociVersion must be specified"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, tt.text)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestParseProcess(t *testing.T) {
	p, err := ParseProcess([]byte(`{"args": ["a"], "cwd": "/", "capabilities": {"bounding": ["CAP_KILL", "CAP_X"]}}`))
	if err != nil || p.Args[0] != "a" {
		t.Fatalf("process %+v, error %v", p, err)
	}
	warnings, err := CheckProcess(p)
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "[CAP_X]") || len(p.Capabilities.Bounding) != 1 {
		t.Errorf("warnings %q, error %v, capabilities %q; want CAP_X gone with a warning", warnings, err, p.Capabilities.Bounding)
	}
	for text, want := range map[string]string{
		`{"args": ["a"], "cwd": "/", "ioPriority": {"class": "x"}}`: "invalid ioPriority.Class",
		`{"args": ["a"]}`:                "Cwd property must not be empty",
		"{\n\"args\": 5}":                "process:2:9: args: cannot use number as an array",
		strings.Repeat(" ", maxConfig+1): "larger than",
	} {
		if _, err := ParseProcess([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: error %v, want %q in it", text, err, want)
		}
	}
}

func TestSecurityModules(t *testing.T) {
	yes, no := func() bool { return true }, func() bool { return false }
	loaded := func(profile string) error {
		if profile != "docker-default" {
			return errors.New("unable to apply apparmor profile")
		}
		return nil
	}
	for _, tt := range []struct {
		p        specs.Process
		apparmor func(string) error
		selinux  func() bool
		err      string
	}{
		{specs.Process{}, apparmor.Check, no, ""},
		{specs.Process{ApparmorProfile: "unconfined"}, apparmor.Check, no, ""},
		{specs.Process{ApparmorProfile: "docker-default"}, loaded, no, ""},
		{specs.Process{ApparmorProfile: "x"}, loaded, no, "unable to apply apparmor profile"},
		{specs.Process{SelinuxLabel: "x"}, apparmor.Check, no, "selinux label is specified in config, but selinux is disabled or not supported"},
		{specs.Process{SelinuxLabel: "x"}, apparmor.Check, yes, ""},
	} {
		err := checkSecurity(&tt.p, tt.apparmor, tt.selinux)
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%q %q: error %v", tt.p.ApparmorProfile, tt.p.SelinuxLabel, err)
		}
	}
}
