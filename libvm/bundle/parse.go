package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// parseSpec decodes config.json.
func parseSpec(data []byte) (*specs.Spec, error) {
	spec := new(specs.Spec)
	if err := decode(configName, data, spec); err != nil {
		return nil, err
	}
	return spec, nil
}

// ParseProcess decodes and checks a runtime-spec Process, as `exec --process`
// takes it. It has no warnings: the caller gets them, and unknown capabilities
// removed, from CheckProcess.
func ParseProcess(data []byte) (*specs.Process, error) {
	if len(data) > maxConfig {
		return nil, fmt.Errorf("process is larger than %d bytes", maxConfig)
	}
	p := new(specs.Process)
	if err := decode("process", data, p); err != nil {
		return nil, err
	}
	probe := *p
	if p.Capabilities != nil {
		c := *p.Capabilities
		probe.Capabilities = &c
	}
	if _, err := CheckProcess(&probe); err != nil {
		return nil, err
	}
	return p, nil
}

// decode is json.Unmarshal with errors that say where: the line and column,
// and for a value of a wrong type the path of its field.
func decode(name string, data []byte, into any) error {
	err := json.Unmarshal(data, into)
	if err == nil {
		return nil
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("%s:%s: %w", name, position(data, syntax.Offset), err)
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		where := position(data, wrong.Offset)
		if wrong.Field == "" {
			return fmt.Errorf("%s:%s: cannot use %s as %s", name, where, wrong.Value, kind(wrong))
		}
		return fmt.Errorf("%s:%s: %s: cannot use %s as %s", name, where, wrong.Field, wrong.Value, kind(wrong))
	}
	return fmt.Errorf("%s: %w", name, err)
}

// kind says in JSON's words what a field takes.
func kind(e *json.UnmarshalTypeError) string {
	switch e.Type.Kind().String() {
	case "struct", "map":
		return "an object"
	case "slice", "array":
		return "an array"
	case "string":
		return "a string"
	case "bool":
		return "a boolean"
	}
	return "a number (" + e.Type.Kind().String() + ")"
}

// position gives "line:column", both counted from 1, of the byte before offset:
// the decoder's offsets count the bytes that it had read.
func position(data []byte, offset int64) string {
	end := max(min(int(offset), len(data))-1, 0)
	line := 1 + bytes.Count(data[:end], []byte("\n"))
	column := end - bytes.LastIndexByte(data[:end], '\n')
	return fmt.Sprintf("%d:%d", line, column)
}
