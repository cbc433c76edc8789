package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go/features"
	"github.com/urfave/cli/v2"
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
