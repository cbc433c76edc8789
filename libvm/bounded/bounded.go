// Package bounded reads what users and engines wrote, which may be of any size.
package bounded

import (
	"fmt"
	"io"
)

// Read reads r to its end, or fails with an error about name if that is more
// than limit bytes away.
func Read(r io.Reader, name string, limit int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(b) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	return b, nil
}
