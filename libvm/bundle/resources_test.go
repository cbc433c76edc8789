package bundle

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestUpdate(t *testing.T) {
	for _, tt := range []struct {
		name, old, change, want string
		unchanged               []string
	}{
		{"nothing of nothing", `{}`, `{}`, `{}`, nil},
		{"memory", `{"memory":{"limit":5}}`, `{"memory":{"limit":7}}`, `{"memory":{"limit":7}}`, nil},
		{"zeros say nothing", `{"memory":{"limit":5,"swap":6},"cpu":{"shares":3,"quota":4,"period":5,"cpus":"0"},"pids":{"limit":8},"blockIO":{"weight":500}}`,
			`{"memory":{"limit":0,"swap":0,"reservation":0},"cpu":{"shares":0,"quota":0,"period":0,"cpus":"","mems":""},"pids":{"limit":0},"blockIO":{"weight":0}}`,
			`{"memory":{"limit":5,"swap":6},"cpu":{"shares":3,"quota":4,"period":5,"cpus":"0"},"pids":{"limit":8},"blockIO":{"weight":500}}`, nil},
		{"no memory limit is none with swap", `{"memory":{"limit":5,"swap":6}}`, `{"memory":{"limit":-1}}`, `{"memory":{"limit":-1}}`, nil},
		{"quota alone", `{"cpu":{"quota":4,"period":5}}`, `{"cpu":{"quota":9}}`, `{"cpu":{"quota":9,"period":5}}`, nil},
		{"idle without shares", `{"cpu":{"shares":4}}`, `{"cpu":{"idle":1}}`, `{"cpu":{"idle":1}}`, nil},
		{"idle with shares", `{"cpu":{"shares":4}}`, `{"cpu":{"idle":0,"shares":9}}`, `{"cpu":{"shares":9,"idle":0}}`, nil},
		{"no burst", `{"cpu":{"burst":4}}`, `{"cpu":{"burst":0}}`, `{"cpu":{"burst":0}}`, nil},
		{"new objects", `{}`, `{"pids":{"limit":-1},"unified":{"a.b":"c"},"blockIO":{"weight":9}}`, `{"pids":{"limit":-1},"blockIO":{"weight":9},"unified":{"a.b":"c"}}`, nil},
		{"null", `{"memory":{"limit":5}}`, `{"memory":null,"cpu":null,"pids":null,"blockIO":null}`, `{"memory":{"limit":5}}`, nil},
		{"what does not change", `{"devices":[{"allow":true,"access":"r"}]}`, `{"devices":[{"allow":true,"access":"r"}],"hugepageLimits":[{"pageSize":"2MB","limit":5}],"network":{"classID":3}}`,
			`{"devices":[{"allow":true,"access":"r"}]}`, []string{"linux.resources.hugepageLimits", "linux.resources.network"}},
	} {
		var old, change specs.LinuxResources
		if json.Unmarshal([]byte(tt.old), &old) != nil || json.Unmarshal([]byte(tt.change), &change) != nil {
			t.Fatal(tt.name)
		}
		next, unchanged := Update(&old, &change)
		got, err := json.Marshal(next)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(got), `,"cpu":{}`, "")
		if text != tt.want || !slices.Equal(unchanged, tt.unchanged) {
			t.Errorf("%s: got %s, %q, want %s, %q", tt.name, got, unchanged, tt.want, tt.unchanged)
		}
	}
}

func TestParseResources(t *testing.T) {
	for text, want := range map[string]string{
		``:                         "unexpected end of JSON input",
		`{"memory":{"limit":"5"}}`: "memory.limit: cannot use string as a number (int64)",
		`[]`:                       "cannot use array as an object",
		`{"cpu":{"shares":-1}}`:    "cpu.shares: cannot use number -1 as a number (uint64)",
		`{} {}`:                    "invalid character '{' after top-level value",
		strings.Repeat(" ", MaxResources) + padding: "larger than",
	} {
		if _, err := ParseResources([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: got %v, want %s", text, err, want)
		}
	}
}

const padding = "{}"

// FuzzUpdate: any JSON is limits that pass the checks, or an error.
func FuzzUpdate(f *testing.F) {
	f.Add([]byte(`{"memory":{"limit":5,"swap":-1},"cpu":{"quota":-1}}`))
	f.Add([]byte(`{"memory":null,"pids":{"limit":1},"unified":{"memory.max":"5"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseResources(data)
		if err != nil {
			return
		}
		next, _ := Update(nil, r)
		if CheckUpdate(next) != nil {
			return
		}
		again, unchanged := Update(next, &specs.LinuxResources{})
		a, errA := json.Marshal(next)
		b, errB := json.Marshal(again)
		if string(a) != string(b) || errA != nil || errB != nil || len(unchanged) > 0 {
			t.Errorf("nothing changes %s to %s", a, b)
		}
	})
}
