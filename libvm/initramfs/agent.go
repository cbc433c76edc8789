package initramfs

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// ErrNoAgent says that this binary was compiled by hand, without make.
var ErrNoAgent = errors.New("this runv was built without its agent: build it with make")

// all: embeds the directory as it is, so that the package compiles before the
// agent does.
//
//go:embed all:embed
var embedded embed.FS

// agentPath is where make puts the agent.
const agentPath = "embed/agent"

// Agent returns the guest's agent, a static executable, that this binary was
// built with. The slice is the caller's: a fresh copy of some megabytes.
func Agent() ([]byte, error) {
	r, err := agentFrom(embedded)
	if err != nil {
		return nil, err
	}
	b := make([]byte, r.Size())
	_, err = io.ReadFull(r, b)
	return b, err
}

// WriteEmbedded is Write with the agent that this binary was built with, of which
// it makes no copy in memory.
func WriteEmbedded(w io.Writer, modules []Module) error {
	agent, err := agentFrom(embedded)
	if err != nil {
		return err
	}
	return write(w, agent, modules)
}

// agentFrom returns the agent for reading.
func agentFrom(fsys fs.FS) (*io.SectionReader, error) {
	f, err := fsys.Open(agentPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoAgent
	}
	if err != nil {
		return nil, fmt.Errorf("read embedded agent: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read embedded agent: %w", err)
	}
	r, ok := f.(io.ReaderAt) // embed: "the returned file implements io.Seeker and io.ReaderAt when the file is not a directory"
	if !ok {
		return nil, fmt.Errorf("read embedded agent: %q is no file", agentPath)
	}
	if st.Size() == 0 {
		return nil, ErrNoAgent
	}
	return io.NewSectionReader(r, 0, st.Size()), nil
}
