package bundle

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// checkTable refuses what Table refuses.
func checkTable(s *specs.Spec) error {
	return newWalker().check(reflect.ValueOf(s).Elem(), "", "")
}

func checkTableProcess(p *specs.Process) error {
	return newWalker().check(reflect.ValueOf(p).Elem(), "process", "process")
}

// walker goes through a value along Table.
type walker struct{ fields map[string]Field }

func newWalker() walker {
	w := walker{map[string]Field{}}
	for _, f := range Table() {
		w.fields[f.Path] = f
	}
	return w
}

// check looks at a value; path is its path in Table's form, and at is the same
// with the indexes.
func (w walker) check(v reflect.Value, path, at string) error {
	if f, ok := w.fields[path]; ok {
		if f.Status == Refused && !empty(v) {
			return fmt.Errorf("%s is not supported: %s", at, f.Note)
		}
		if f.Status != Supported {
			return nil
		}
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return w.check(v.Elem(), path, at)
		}
		return nil
	case reflect.Struct:
		return w.checkStruct(v, path, at)
	case reflect.Slice:
		if leaf(v.Type()) {
			break
		}
		for i := range v.Len() {
			if err := w.check(v.Index(i), path+"[]", fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
		return nil
	case reflect.Map:
		if leaf(v.Type().Elem()) {
			break
		}
		for _, k := range slices.SortedFunc(slices.Values(v.MapKeys()), func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) }) {
			if err := w.check(v.MapIndex(k), path+"{}", at+"."+k.String()); err != nil {
				return err
			}
		}
		return nil
	}
	if _, ok := w.fields[path]; !ok && !empty(v) {
		return fmt.Errorf("%s is not supported: runv does not know it", at)
	}
	return nil
}

func (w walker) checkStruct(v reflect.Value, path, at string) error {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		p, a := path, at
		if name := jsonName(f); name != "" {
			p, a = join(path, name), join(at, name)
		}
		if err := w.check(v.Field(i), p, a); err != nil {
			return err
		}
	}
	return nil
}

// jsonName is a field's name in JSON; empty for an embedded struct, whose
// fields are its parent's.
func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	if name == "" && !f.Anonymous {
		return f.Name
	}
	return name
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// leaf says whether a type has no fields of its own: it is one entry of Table.
func leaf(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return leaf(t.Elem())
	case reflect.Struct:
		return false
	}
	return true
}

// empty says whether a value says nothing: zero, or made of nothing but that.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return v.IsNil() || empty(v.Elem())
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	case reflect.Struct:
		for i := range v.NumField() {
			if !empty(v.Field(i)) {
				return false
			}
		}
		return true
	}
	return v.IsZero()
}
