package rpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Message is a message of protobuf. Its fields are pointers to the values, each
// at the index that is its number: *string, *[]byte, *bool, *uint32, *int32,
// *uint64, *int64, Message, or repeated messages; nil where there is none.
type Message interface{ fields() []any }

// repeated are messages that repeat.
type repeated interface {
	count() int
	at(i int) Message
	add() Message
}

// List is a repeated message.
type List[T any, P interface {
	*T
	Message
}] []T

func (l *List[T, P]) count() int       { return len(*l) }
func (l *List[T, P]) at(i int) Message { return P(&(*l)[i]) }
func (l *List[T, P]) add() Message {
	*l = append(*l, *new(T))
	return P(&(*l)[len(*l)-1])
}

// Wire types of protobuf's encoding.
const (
	typeVarint  = 0
	typeFixed64 = 1
	typeBytes   = 2
	typeFixed32 = 5
)

// Marshal writes a message as protobuf does. Strings that are not UTF-8, as names
// of files may be, are made so: protobuf refuses the whole message otherwise.
func Marshal(m Message) []byte { return appendMessage(nil, m) }

func appendMessage(b []byte, m Message) []byte {
	for i, f := range m.fields() {
		switch v := f.(type) {
		case nil:
		case *string:
			b = appendBytes(b, i, strings.ToValidUTF8(*v, "\uFFFD"))
		case *[]byte:
			b = appendBytes(b, i, *v)
		case *bool:
			if *v {
				b = appendNumber(b, i, 1)
			}
		case *uint32:
			b = appendNumber(b, i, uint64(*v))
		case *int32:
			b = appendNumber(b, i, uint64(int64(*v)))
		case *uint64:
			b = appendNumber(b, i, *v)
		case *int64:
			b = appendNumber(b, i, uint64(*v))
		case repeated:
			for j := range v.count() {
				b = binary.AppendUvarint(b, tag(i, typeBytes))
				sub := Marshal(v.at(j))
				b = append(binary.AppendUvarint(b, uint64(len(sub))), sub...)
			}
		case Message:
			b = appendBytes(b, i, Marshal(v))
		}
	}
	return b
}

func tag(field, typ int) uint64 { return uint64(field)<<3 | uint64(typ) }

func appendNumber(b []byte, field int, n uint64) []byte {
	if n == 0 {
		return b
	}
	return binary.AppendUvarint(binary.AppendUvarint(b, tag(field, typeVarint)), n)
}

func appendBytes[T ~string | ~[]byte](b []byte, field int, v T) []byte {
	if len(v) == 0 {
		return b
	}
	b = binary.AppendUvarint(b, tag(field, typeBytes))
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

var errMessage = errors.New("malformed message")

// Unmarshal reads a message. Fields that it does not know are skipped. Nothing of
// the message points into b.
func Unmarshal(b []byte, m Message) error {
	fields := m.fields()
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		if n <= 0 {
			return errMessage
		}
		b = b[n:]
		number, data, rest, err := value(b, key&7)
		if err != nil {
			return err
		}
		b = rest
		i := key >> 3
		if i >= uint64(len(fields)) || fields[i] == nil {
			continue
		}
		if err := set(fields[i], key&7, number, data); err != nil {
			return fmt.Errorf("field %d: %w", i, err)
		}
	}
	return nil
}

// value takes a value of a wire type off b.
func value(b []byte, typ uint64) (number uint64, data, rest []byte, err error) {
	switch typ {
	case typeVarint, typeBytes:
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, nil, nil, errMessage
		}
		b = b[n:]
		if typ == typeVarint {
			return v, nil, b, nil
		}
		if v > uint64(len(b)) {
			return 0, nil, nil, errMessage
		}
		return 0, b[:v], b[v:], nil
	case typeFixed64, typeFixed32:
		n := 8
		if typ == typeFixed32 {
			n = 4
		}
		if len(b) < n {
			return 0, nil, nil, errMessage
		}
		return 0, nil, b[n:], nil // no field of ours
	}
	return 0, nil, nil, errMessage
}

func set(field any, typ, number uint64, data []byte) error {
	want := uint64(typeVarint)
	switch v := field.(type) {
	case *bool:
		*v = number != 0
	case *uint32:
		*v = uint32(number)
	case *int32:
		*v = int32(number)
	case *uint64:
		*v = number
	case *int64:
		*v = int64(number)
	default:
		want = typeBytes
	}
	if typ != want {
		return errMessage
	}
	switch v := field.(type) {
	case *string:
		*v = string(data)
	case *[]byte:
		*v = append([]byte(nil), data...)
	case repeated:
		return Unmarshal(data, v.add())
	case Message:
		return Unmarshal(data, v)
	}
	return nil
}
