package wire

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// unknown are the fields of the spec's types that the guest does not act on.
var unknown = map[string]bool{
	"Process.CommandLine": true, "Process.ApparmorProfile": true, "Process.SelinuxLabel": true,
	"User.Username": true, "Root.Path": true,
	"LinuxResources.Devices": true, "LinuxResources.Network": true,
	"LinuxResources.Rdma": true, "LinuxBlockIO.LeafWeight": true, "LinuxBlockIO.WeightDevice": true,
	"LinuxBlockIO.ThrottleReadBpsDevice": true, "LinuxBlockIO.ThrottleWriteBpsDevice": true,
	"LinuxBlockIO.ThrottleReadIOPSDevice": true, "LinuxBlockIO.ThrottleWriteIOPSDevice": true,
	"LinuxMemory.Kernel": true, "LinuxMemory.KernelTCP": true, "LinuxMemory.Swappiness": true,
	"LinuxMemory.DisableOOMKiller": true, "LinuxMemory.UseHierarchy": true, "LinuxMemory.CheckBeforeUpdate": true,
}

// fill gives every field of v that the guest knows a value of its own.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if !unknown[v.Type().Name()+"."+v.Type().Field(i).Name] {
				fill(v.Field(i), n)
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"b": "1", "a": "2"}))
	case reflect.String:
		v.SetString(fmt.Sprint("text ", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(-int64(*n) << 20)
	case reflect.Int32:
		v.SetInt(-int64(*n))
	case reflect.Uint64:
		v.SetUint(uint64(*n) << 40)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(uint64(*n))
	default:
		panic(v.Type().String())
	}
}

// TestSpec finds a field that is added to the spec, or to Spec, and not coded.
func TestSpec(t *testing.T) {
	var want Spec
	n := 0
	fill(reflect.ValueOf(&want).Elem(), &n)
	b := Marshal(&want, spec)
	got, err := UnmarshalSpec(b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, &want) {
		t.Errorf("got  %+v\nwant %+v", got, &want)
	}
	for i := range b {
		if _, err := UnmarshalSpec(b[:i]); err == nil {
			t.Fatalf("%d of %d bytes make a spec", i, len(b))
		}
	}
	if _, err := UnmarshalSpec(append(b, 0)); err == nil {
		t.Error("a byte too many makes a spec")
	}
}

func TestMarshalSpec(t *testing.T) {
	var full specs.Linux
	full.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 1, HostID: 2, Size: 3}}
	full.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 4, HostID: 5, Size: 6}}
	full.Sysctl = map[string]string{"a.b": "c"}
	full.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{}}
	full.CgroupsPath, full.RootfsPropagation = "/x", "rslave"
	full.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace, Path: "/p"}}
	full.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "c", Major: 1, Minor: 2}}
	full.MaskedPaths, full.ReadonlyPaths = []string{"/m"}, []string{"/r"}
	full.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	s := specs.Spec{
		Process: &specs.Process{Args: []string{"a", ""}, Cwd: "/"}, Root: &specs.Root{Path: "rootfs", Readonly: true},
		Hostname: "h", Domainname: "d", Mounts: []specs.Mount{{Destination: "/d", Options: []string{"ro"}}},
		Linux: &full, Hooks: &specs.Hooks{StartContainer: []specs.Hook{{Path: "/h", Args: []string{"h"}}}, Poststop: []specs.Hook{{Path: "/p"}}},
	}
	hookState := []byte("{\"pid\":\x00}")
	got, err := UnmarshalSpec(MarshalSpec(&s, hookState))
	if err != nil {
		t.Fatal(err)
	}
	want := Spec{Process: s.Process, Root: &specs.Root{Readonly: true}, Hostname: "h", Domainname: "d", Mounts: s.Mounts, Linux: Linux{
		UIDMappings: full.UIDMappings, GIDMappings: full.GIDMappings, Sysctl: full.Sysctl, Resources: full.Resources,
		CgroupsPath: full.CgroupsPath, Namespaces: full.Namespaces, Devices: full.Devices, RootfsPropagation: full.RootfsPropagation,
		MaskedPaths: full.MaskedPaths, ReadonlyPaths: full.ReadonlyPaths, Personality: full.Personality,
	}, StartContainer: s.Hooks.StartContainer, HookState: hookState}
	if !reflect.DeepEqual(got, &want) {
		t.Errorf("got  %+v\nwant %+v", got, &want)
	}
	if s, err := UnmarshalSpec(MarshalSpec(&specs.Spec{}, nil)); err != nil || !reflect.DeepEqual(s, &Spec{}) {
		t.Errorf("empty spec: %+v, %v", s, err)
	}
}

func TestNumberRange(t *testing.T) {
	large := uint64(1) << 32
	var small uint32
	if err := Unmarshal(Marshal(&large, Number), &small, Number); err == nil {
		t.Errorf("2^32 became %d", small)
	}
}

func FuzzUnmarshalSpec(f *testing.F) {
	f.Add(MarshalSpec(&specs.Spec{}, nil))
	f.Add(MarshalSpec(&specs.Spec{Process: &specs.Process{Args: []string{"a"}}, Mounts: []specs.Mount{{Type: "proc"}}}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := UnmarshalSpec(b)
		if err != nil {
			return
		}
		again, err := UnmarshalSpec(Marshal(s, spec))
		if err != nil || !reflect.DeepEqual(s, again) {
			t.Errorf("%+v became %+v, %v", s, again, err)
		}
	})
}
