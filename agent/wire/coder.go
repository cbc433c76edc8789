// Package wire is the form in which the host tells the agent, and the agent the
// first process of a container, what of a config.json they act on: the fields one
// after the other, in the order of the code, numbers as varints, everything of
// variable length after its length. Both sides are always of the same build.
//
// It is neither JSON nor protobuf because those learn Go's types by reflection
// when they first meet them: some ten milliseconds of an emulated guest's boot,
// twice.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Coder writes or reads a record. The same calls do both, so that the two cannot
// differ: each takes the address of a field, and either appends its value or sets
// it. After an error every call does nothing.
type Coder struct {
	b       []byte // written, or what is left to be read
	reading bool
	err     error
}

// errShort is the error of a record that ends too early.
var errShort = errors.New("record is cut off")

// Marshal writes a value by the function that codes it.
func Marshal[T any](v *T, code func(*Coder, *T)) []byte {
	c := Coder{b: make([]byte, 0, 4096)}
	code(&c, v)
	return c.b
}

// Unmarshal reads a value by the function that codes it. The record must hold
// the value and nothing more. Nothing of the value points into b.
func Unmarshal[T any](b []byte, v *T, code func(*Coder, *T)) error {
	c := Coder{b: b, reading: true}
	code(&c, v)
	if c.err == nil && len(c.b) > 0 {
		return fmt.Errorf("record has %d bytes too many", len(c.b))
	}
	return c.err
}

func (c *Coder) fail(err error) {
	c.err, c.b = err, nil
}

func (c *Coder) readUint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.fail(errShort)
		return 0
	}
	c.b = c.b[n:]
	return v
}

// integer is any type of whole numbers.
type integer interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~uintptr
}

// Number codes a whole number. One that the field cannot hold is an error.
func Number[T integer](c *Coder, v *T) {
	if !c.reading {
		c.b = binary.AppendUvarint(c.b, uint64(*v))
		return
	}
	u := c.readUint()
	*v = T(u)
	if uint64(*v) != u && c.err == nil {
		c.fail(fmt.Errorf("number %d does not fit", u))
	}
}

// Bool codes a truth value.
func (c *Coder) Bool(v *bool) {
	var n uint8
	if *v {
		n = 1
	}
	Number(c, &n)
	*v = n != 0
}

// length codes a length. What is read cannot be more than what is left: each
// element has a byte at least.
func (c *Coder) length(n int) int {
	if !c.reading {
		c.b = binary.AppendUvarint(c.b, uint64(n))
		return n
	}
	u := c.readUint()
	if u > uint64(len(c.b)) {
		c.fail(errShort)
		return 0
	}
	return int(u)
}

// String codes a string.
func String[T ~string](c *Coder, v *T) {
	n := c.length(len(*v))
	if !c.reading {
		c.b = append(c.b, *v...)
		return
	}
	*v = T(c.b[:n])
	c.b = c.b[n:]
}

// Bytes codes a slice of bytes; an empty one is read as nil.
func (c *Coder) Bytes(v *[]byte) {
	n := c.length(len(*v))
	if !c.reading {
		c.b = append(c.b, *v...)
		return
	}
	*v = append([]byte(nil), c.b[:n]...)
	c.b = c.b[n:]
}

// Slice codes a slice by the function that codes an element, which must take a
// byte at least; an empty one is read as nil.
func Slice[T any](c *Coder, v *[]T, code func(*Coder, *T)) {
	n := c.length(len(*v))
	if c.reading {
		*v = nil
		for range n {
			if c.err != nil {
				return
			}
			// Grown as it is read: a bad length costs no more than its bytes.
			*v = append(*v, *new(T))
			code(c, &(*v)[len(*v)-1])
		}
		return
	}
	for i := range *v {
		code(c, &(*v)[i])
	}
}

// Strings codes a slice of strings.
func (c *Coder) Strings(v *[]string) { Slice(c, v, String) }

// Pointer codes what a pointer points to, or that it is nil.
func Pointer[T any](c *Coder, v **T, code func(*Coder, *T)) {
	there := *v != nil
	c.Bool(&there)
	if c.err != nil || !there {
		if c.reading {
			*v = nil
		}
		return
	}
	if c.reading {
		*v = new(T)
	}
	code(c, *v)
}

// Map codes a map of strings; an empty one is read as nil. Its keys are written
// in order, so that a record is the same each time.
func (c *Coder) Map(v *map[string]string) {
	n := c.length(len(*v))
	if !c.reading {
		for _, k := range slices.Sorted(maps.Keys(*v)) {
			value := (*v)[k]
			String(c, &k)
			String(c, &value)
		}
		return
	}
	*v = nil
	for range n {
		var k, value string
		String(c, &k)
		String(c, &value)
		if c.err != nil {
			return
		}
		if *v == nil {
			*v = make(map[string]string)
		}
		(*v)[k] = value
	}
}
