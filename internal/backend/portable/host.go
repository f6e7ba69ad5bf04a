package portable

import "time"

// Host tells the backend whether a host waits in Await and then calls Wait with timeout 0;
// see backend.Awaiter. It belongs to the loop's goroutine.
func (b *Backend) Host(on bool) {
	b.hosted.Store(on)
	if on && b.pending() {
		b.prompt()
	}
}

// Await waits for what Wait would report; see backend.Awaiter. It has a channel of its
// own, lest it take the signal that a Wait in progress needs.
func (b *Backend) Await(timeout time.Duration, quit <-chan struct{}) {
	if timeout == 0 {
		return
	}
	var expired <-chan time.Time
	if timeout > 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		expired = t.C
	}
	select {
	case <-b.due:
	case <-expired:
	case <-quit:
	}
}

// prompt ends an Await in progress, or else the next one.
func (b *Backend) prompt() {
	if !b.hosted.Load() {
		return
	}
	select {
	case b.due <- struct{}{}:
	default:
	}
}

// hush takes back what prompt did: what it announced is looked at next.
func (b *Backend) hush() {
	select {
	case <-b.due:
	default:
	}
}

// pending reports whether the next Wait has something to look at.
func (b *Backend) pending() bool {
	if len(b.refusals) > 0 || b.head < len(b.taken) {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.woken || len(b.ready) > 0
}
