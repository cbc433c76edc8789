package initramfs

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
)

// ErrNoAgent says that this binary was compiled by hand, without make.
var ErrNoAgent = errors.New("this runv was built without its agent: build it with make")

// all: embeds the directory as it is, so that the package compiles before the
// agent does.
//
//go:embed all:embed
var embedded embed.FS

// Agent returns the guest's agent, a static executable, that this binary was
// built with. The slice is the caller's: a fresh copy of some megabytes.
func Agent() ([]byte, error) {
	return agentFrom(embedded)
}

func agentFrom(fsys fs.FS) ([]byte, error) {
	b, err := fs.ReadFile(fsys, "embed/agent")
	if errors.Is(err, fs.ErrNotExist) || (err == nil && len(b) == 0) {
		return nil, ErrNoAgent
	}
	if err != nil {
		return nil, fmt.Errorf("read embedded agent: %w", err)
	}
	return b, nil
}
