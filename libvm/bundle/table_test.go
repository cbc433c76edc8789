package bundle

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "write docs/config-fields.md")

// leaves lists the paths of all fields of a type that have no fields
// themselves, and inner those of all others.
func leaves(t reflect.Type, path string, out, inner *[]string) {
	switch t.Kind() {
	case reflect.Pointer:
		leaves(t.Elem(), path, out, inner)
		return
	case reflect.Slice:
		if !leaf(t) {
			*inner = append(*inner, path)
			leaves(t.Elem(), path+"[]", out, inner)
			return
		}
	case reflect.Map:
		if !leaf(t.Elem()) {
			*inner = append(*inner, path)
			leaves(t.Elem(), path+"{}", out, inner)
			return
		}
	case reflect.Struct:
		*inner = append(*inner, path)
		for i := range t.NumField() {
			f := t.Field(i)
			p := path
			if name := jsonName(f); name != "" {
				p = join(path, name)
			}
			leaves(f.Type, p, out, inner)
		}
		return
	}
	*out = append(*out, path)
}

// Every field of the specification is in the table, by itself or (refused and
// ignored ones) by a field above it, and nothing else is.
func TestTableIsWhole(t *testing.T) {
	var all, inner []string
	leaves(reflect.TypeFor[specs.Spec](), "", &all, &inner)
	if len(all) < 200 {
		t.Fatalf("%d fields found, the walk is broken", len(all))
	}
	table := map[string]Field{}
	for _, f := range Table() {
		if _, twice := table[f.Path]; twice {
			t.Errorf("%s is in the table twice", f.Path)
		}
		table[f.Path] = f
		if !slices.Contains(all, f.Path) && (f.Status == Supported || !slices.Contains(inner, f.Path)) {
			t.Errorf("%s is in the table but is not a field", f.Path)
		}
		if f.Status != Supported && f.Note == "" {
			t.Errorf("%s is %s without a reason", f.Path, f.Status)
		}
	}
	for _, path := range all {
		if !covered(table, path) {
			t.Errorf("%s is not in the table", path)
		}
	}
}

func covered(table map[string]Field, path string) bool {
	if _, ok := table[path]; ok {
		return true
	}
	for i := len(path) - 1; i > 0; i-- {
		if !strings.ContainsRune(".[{", rune(path[i])) {
			continue
		}
		if f, ok := table[path[:i]]; ok {
			return f.Status != Supported
		}
	}
	return false
}

// Every refused field, set alone, is refused by name.
func TestRefusedFields(t *testing.T) {
	for _, f := range Table() {
		if f.Status != Refused {
			continue
		}
		t.Run(f.Path, func(t *testing.T) {
			var s specs.Spec
			set(t, reflect.ValueOf(&s).Elem(), strings.Split(f.Path, "."))
			want := strings.ReplaceAll(f.Path, "[]", "[0]") + " is not supported: " + f.Note
			if err := checkTable(&s); err == nil || err.Error() != want {
				t.Errorf("error %v, want %s", err, want)
			}
		})
	}
}

// set gives the field at a path a value that is not nothing.
func set(t *testing.T, v reflect.Value, path []string) {
	t.Helper()
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		v = v.Elem()
	}
	if len(path) == 0 {
		fill(v)
		return
	}
	name, list := strings.CutSuffix(path[0], "[]")
	for i := range v.NumField() {
		if jsonName(v.Type().Field(i)) != name {
			continue
		}
		f := v.Field(i)
		if list {
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
			f = f.Index(0)
		}
		set(t, f, path[1:])
		return
	}
	t.Fatalf("no field %q in %s", name, v.Type())
}

func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		fill(v.Field(0))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem())
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	}
}

// Engines write many fields that say nothing.
func TestEmptyFieldsAreNothing(t *testing.T) {
	s := config(t, `"hooks": {"prestart": []}, "vm": {"hypervisor": {"path": ""}, "kernel": {"path": ""}},
		"windows": {"layerFolders": ["x"]}, "solaris": {"milestone": "x"}`)
	s = strings.Replace(s, `"resources": {`, `"intelRdt": {}, "timeOffsets": {}, "resources": {
		"blockIO": {"weight": 0, "weightDevice": []}, "hugepageLimits": [], "unified": {},
		"memory": {"limit": 0, "swap": 0, "disableOOMKiller": false},
		"cpu": {"burst": 0, "idle": 0, "realtimeRuntime": 0, "cpus": "", "quota": 0},
		"pids": {"limit": 0}, "network": {"classID": 0, "priorities": []},`, 1)
	if _, err := load(t, s); err != nil {
		t.Error(err)
	}
}

func TestDocs(t *testing.T) {
	const path = "../../docs/config-fields.md"
	text := docs()
	if *update {
		if err := os.MkdirAll("../../docs", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(text, string(got)); diff != "" {
		t.Errorf("%s is not up to date (run: go test ./libvm/bundle -run TestDocs -update):\n%s", path, diff)
	}
}

func docs() string {
	var b strings.Builder
	b.WriteString(`# Fields of config.json

What runv does with each field of a bundle's configuration (runtime-spec ` + specs.Version + `).
Made from the table in libvm/bundle by ` + "`go test ./libvm/bundle -run TestDocs -update`" + `; do not edit.

- supported: does what the specification says;
- refused: ` + "`create`" + ` fails and names the field if it is set to anything but zero, false, "" or nothing;
- ignored: changes nothing, for the reason given.

What is said of a refused or ignored field holds for the fields below it. Unknown fields are kept and change nothing.

| field | | |
| --- | --- | --- |
`)
	for _, f := range Table() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.Path, f.Status, f.Note)
	}
	return b.String()
}
