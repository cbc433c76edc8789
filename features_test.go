package main

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go/features"
	"github.com/urfave/cli/v2"

	"runv/libvm/bundle"
)

func TestFeaturesGolden(t *testing.T) {
	data, err := json.MarshalIndent(runvFeatures("1.2.3", "abc", "/usr/share/runv/vmlinux"), "", "    ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "features.json", append(data, '\n'))
}

func TestFeaturesCommand(t *testing.T) {
	var out bytes.Buffer
	c := cli.NewApp()
	c.Writer = &out
	c.Commands = []*cli.Command{featuresCommand()}
	if err := c.Run([]string{"runv", "features"}); err != nil {
		t.Fatal(err)
	}
	var f features.Features
	if err := json.Unmarshal(out.Bytes(), &f); err != nil {
		t.Fatal(err)
	}
	if f.OCIVersionMin != "1.0.0" || f.Annotations[featureVersion] != version || f.Linux == nil || !*f.Linux.Seccomp.Enabled {
		t.Errorf("features %+v", f)
	}
}

// silent are the members of the document that say nothing, and the field of
// config.json that is not supported for that reason.
var silent = map[string]string{"linux.memoryPolicy": "linux.memoryPolicy"}

// TestFeaturesAreWhole walks the specification's type: a member that is new in it,
// and that we say nothing of, fails this.
func TestFeaturesAreWhole(t *testing.T) {
	f := runvFeatures("1", "2", "3")
	n := 0
	var walk func(v reflect.Value, path string)
	walk = func(v reflect.Value, path string) {
		if v.Kind() == reflect.Struct {
			for i := range v.NumField() {
				name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
				walk(v.Field(i), strings.TrimPrefix(path+"."+name, "."))
			}
			return
		}
		field, isSilent := silent[path]
		if isSilent != v.IsZero() {
			t.Errorf("%s: silent %v, want %v", path, v.IsZero(), isSilent)
		}
		if isSilent && bundle.Supports(field) {
			t.Errorf("%s is silent, but %s is supported", path, field)
		}
		n++
		if v.Kind() == reflect.Pointer && !v.IsZero() && v.Elem().Kind() == reflect.Struct {
			walk(v.Elem(), path)
		}
	}
	walk(reflect.ValueOf(f), "")
	if n < 25 {
		t.Errorf("%d members found, the walk is broken", n)
	}
}
