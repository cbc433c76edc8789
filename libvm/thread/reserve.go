package thread

import (
	"runtime"
	"sync"
)

// reserving guards the setting of GOMAXPROCS.
var reserving sync.Mutex

// Reserve has Go's scheduler run n threads more at the same time, until release,
// which may be called again. It is for threads that are in system calls nearly all
// the time: the scheduler takes their place away only after up to 10 ms, or, if it
// does not know of the call, after its end. Without places of their own the rest of
// the program would wait for them.
func Reserve(n int) (release func()) {
	add(n)
	return sync.OnceFunc(func() { add(-n) })
}

func add(n int) {
	reserving.Lock()
	defer reserving.Unlock()
	runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)+n))
}
