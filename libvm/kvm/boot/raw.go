package boot

import (
	"fmt"

	"runv/libvm/mem"
)

// Raw puts code at 1 MiB instead of a kernel, to be entered in the same state.
func Raw(m *mem.Memory, code []byte) (State, error) {
	dst, err := m.Slice(himem, uint64(len(code)))
	if err != nil {
		return State{}, fmt.Errorf("code of %d bytes: %w", len(code), err)
	}
	copy(dst, code)
	if err := writeTables(m); err != nil {
		return State{}, err
	}
	return state(himem), nil
}
