package state

import "errors"

// The words are runc's: engines and scripts match on them.
var (
	// ErrExists says that the id is in use.
	ErrExists = errors.New("container with given ID already exists")
	// ErrNotExist says that there is no such container, or no state of it.
	ErrNotExist = errors.New("container does not exist")
	// ErrEmptyID says that the id has no characters.
	ErrEmptyID = errors.New("container id cannot be empty")
	// ErrInvalidID says that the id cannot be the name of a directory.
	ErrInvalidID = errors.New("invalid container ID format")
	// ErrRunning is the answer to a second start.
	ErrRunning = errors.New("cannot start an already running container")
	// ErrStopped is the answer to a start after the end.
	ErrStopped = errors.New("cannot start a container that has stopped")
	// ErrNotPaused is the answer to a resume of a container that runs.
	ErrNotPaused = errors.New("container not paused")
	// ErrNotRunning is the answer to a signal for a workload that has ended.
	ErrNotRunning = errors.New("container not running")
)
