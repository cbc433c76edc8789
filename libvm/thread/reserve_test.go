package thread

import (
	"runtime"
	"sync"
	"testing"
)

// TestReserve: places add up, and go once each.
func TestReserve(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	releases := make([]func(), 20)
	var wg sync.WaitGroup
	for i := range releases {
		wg.Go(func() { releases[i] = Reserve(1 + i%2) })
	}
	wg.Wait()
	if got, want := runtime.GOMAXPROCS(0), before+30; got != want {
		t.Errorf("%d threads, want %d", got, want)
	}
	for _, release := range releases {
		wg.Go(release)
		wg.Go(release)
	}
	wg.Wait()
	if got := runtime.GOMAXPROCS(0); got != before {
		t.Errorf("%d threads after all, want %d", got, before)
	}
}
