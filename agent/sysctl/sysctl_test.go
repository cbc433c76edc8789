package sysctl

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	tests := []struct {
		key      string
		ipc, uts bool
		err      string
	}{
		{"kernel.msgmax", true, false, ""},
		{"kernel/msgmax", true, false, ""},
		{"kernel.msgmax", false, true, `sysctl "kernel.msgmax" is not allowed in the hosts ipc namespace`},
		{"fs.mqueue.msg_max", true, false, ""},
		{"kernel.domainname", false, true, ""},
		{"kernel.hostname", true, true, `sysctl "kernel.hostname" is not allowed as it conflicts with the OCI "hostname" field`},
		{"net.ipv4.ip_forward", false, false, ""},
		{"vm.swappiness", true, true, `sysctl "vm.swappiness" is not in a separate kernel namespace`},
	}
	for _, tt := range tests {
		err := Check(tt.key, tt.ipc, tt.uts)
		if (err == nil) != (tt.err == "") || (err != nil && err.Error() != tt.err) {
			t.Errorf("%s: %v, want %s", tt.key, err, tt.err)
		}
	}
}

func TestFile(t *testing.T) {
	for key, want := range map[string]string{
		"net.ipv4.ip_forward":             "/proc/sys/net/ipv4/ip_forward",
		"net/ipv4/conf/eth0.1/forwarding": "/proc/sys/net/ipv4/conf/eth0.1/forwarding",
		"net.ipv4.conf.eth0/1.forwarding": "/proc/sys/net/ipv4/conf/eth0.1/forwarding",
		"net.//.//.x":                     "",
		"/etc/passwd":                     "",
		"net.a\x00b":                      "",
		"net..x":                          "",
		"net.":                            "",
		".":                               "",
		"":                                "",
	} {
		got, err := File(key)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v; want %q", key, got, err, want)
		}
	}
}

func FuzzFile(f *testing.F) {
	f.Add("net.ipv4.ip_forward")
	f.Add("net/ipv4/conf/eth0.1/forwarding")
	f.Add("a.../../.b")
	f.Fuzz(func(t *testing.T, key string) {
		if file, err := File(key); err == nil && !strings.HasPrefix(filepath.Clean(file), "/proc/sys/") {
			t.Errorf("%q is %q", key, file)
		}
	})
}
