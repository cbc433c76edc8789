package stats

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// files are those of a container with everything.
func files() map[string]string {
	return map[string]string{
		"cpu.stat":        "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 2\nthrottled_usec 7\n",
		"cpu.pressure":    "some avg10=1.50 avg60=0.00 avg300=0.25 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
		"memory.stat":     "anon 100\nfile 200\n",
		"memory.current":  "300\n",
		"memory.max":      "400\n",
		"memory.peak":     "350\n",
		"memory.events":   "low 0\noom 1\noom_kill 2\n",
		"pids.current":    "5\n",
		"pids.max":        "max\n",
		"io.stat":         "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\nnothing\n",
		"hugetlb.2MB.max": "max\n", "hugetlb.2MB.current": "0\n", "hugetlb.2MB.rsvd.current": "4096\n", "hugetlb.2MB.events": "max 3\n",
		"net/dev": "Inter-|   Receive\n face |bytes    packets\n    lo: 9 9 9 9 0 0 0 0 9 9 9 9 0 0 0 0\n  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n",
	}
}

// TestParse has the bytes that runc prints for such a container.
func TestParse(t *testing.T) {
	s, err := Parse(files())
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(Event{Type: "stats", ID: "x", Data: s})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		`{"type":"stats","id":"x","data":{"cpu":{"usage":{"total":30000,"kernel":10000,"user":20000},"throttling":{"periods":4,"throttledPeriods":2,"throttledTime":7000},`,
		`"psi":{"some":{"avg10":1.5,"avg60":0,"avg300":0.25,"total":9}}},`,
		`"cpuset":{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"sched_relax_domain_level":0},`,
		`"memory":{"cache":200,"usage":{"limit":400,"usage":300,"max":350,"failcnt":0},"swap":{"limit":400,"usage":300,"failcnt":0},"kernel":{"limit":0,"failcnt":0},"kernelTCP":{"limit":0,"failcnt":0},"raw":{"anon":100,"file":200}},`,
		`"pids":{"current":5},"blkio":{"ioServiceBytesRecursive":[{"major":254,"op":"Read","value":1},{"major":254,"op":"Write","value":2}],"ioServicedRecursive":[{"major":254,"op":"Read","value":3},{"major":254,"op":"Write","value":4}]},`,
		`"hugetlb":{"2MB":{"usage":4096,"failcnt":3}},"intel_rdt":{},"network_interfaces":[{"Name":"eth0","RxBytes":1,"RxPackets":2,"RxErrors":3,"RxDropped":4,"TxBytes":5,"TxPackets":6,"TxErrors":7,"TxDropped":8}]}}`,
	}, "")
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	if n, err := OOMKills(files()); n != 2 || err != nil {
		t.Errorf("oom kills: %d, %v", n, err)
	}
}

func TestParseNothing(t *testing.T) {
	s, err := Parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(s)
	if err != nil || !strings.HasSuffix(string(got), `"pids":{},"blkio":{},"hugetlb":{},"intel_rdt":{},"network_interfaces":null}`) {
		t.Errorf("%s, %v", got, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"cpu.stat": "usage_usec -1\n", "memory.stat": "anon\n", "memory.current": "x", "pids.current": "1 2", "pids.max": "-1",
		"io.stat": "8:0 rbytes=x", "hugetlb.2MB.events": "max max", "net/dev": "eth0: x", "cpu.pressure": "some avg10=NaN", "memory.max": "1e3",
	} {
		m := files()
		m[name] = text
		if _, err := Parse(m); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s %q: %v", name, text, err)
		}
	}
}

// FuzzParse: whatever the guest says is stats that can be printed, or an error.
func FuzzParse(f *testing.F) {
	for name, text := range files() {
		f.Add(name, text)
	}
	f.Fuzz(func(t *testing.T, name, text string) {
		m := files()
		m[name] = text
		s, err := Parse(m)
		if err != nil {
			return
		}
		if _, err := json.Marshal(s); err != nil {
			t.Error(err)
		}
	})
}
