package cgroup

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// PropertyPrefix begins the annotations that are properties of the systemd unit,
// as under runc.
const PropertyPrefix = "org.systemd.property."

// properties reads the unit's properties out of annotations: values are in the
// text format of GVariant. A name that ends in Sec is a time in seconds, which
// systemd takes in microseconds as …USec.
func properties(annotations map[string]string) ([]systemd.Property, error) {
	valid := regexp.MustCompile(`^[A-Z][A-Za-z]+$`)
	var out []systemd.Property
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		name, ok := strings.CutPrefix(key, PropertyPrefix)
		if !ok || name == "" {
			continue
		}
		if !valid.MatchString(name) {
			return nil, fmt.Errorf("annotation %s: invalid property name %q", key, name)
		}
		value, err := dbus.ParseVariant(annotations[key], dbus.Signature{})
		if err != nil {
			return nil, fmt.Errorf("annotation %s=%s: %w", key, annotations[key], err)
		}
		if base, ok := strings.CutSuffix(name, "Sec"); ok && !strings.HasSuffix(name, "USec") {
			if value, err = microseconds(value); err != nil {
				return nil, fmt.Errorf("annotation %s=%s: %w", key, annotations[key], err)
			}
			name = base + "USec"
		}
		out = append(out, systemd.Property{Name: name, Value: value})
	}
	return out, nil
}

// microseconds turns a number of seconds into the unsigned number of microseconds
// that systemd's properties have.
func microseconds(v dbus.Variant) (dbus.Variant, error) {
	var seconds float64
	switch n := v.Value().(type) {
	case byte:
		seconds = float64(n)
	case int16:
		seconds = float64(n)
	case uint16:
		seconds = float64(n)
	case int32:
		seconds = float64(n)
	case uint32:
		seconds = float64(n)
	case int64:
		seconds = float64(n)
	case uint64:
		seconds = float64(n)
	case float64:
		seconds = n
	default:
		return v, fmt.Errorf("not a number: %v", v)
	}
	if seconds < 0 {
		return v, fmt.Errorf("negative time: %v", v)
	}
	return dbus.MakeVariant(uint64(seconds * float64(time.Second/time.Microsecond))), nil
}
