package weir

import (
	"fmt"
	"os"
	"os/signal"
	"sync"

	"github.com/weir-io/weir/internal/sys"
)

// SignalHandler is a callback for a signal.
type SignalHandler struct {
	loop *Loop
	fn   func(os.Signal)
	ch   chan os.Signal
	quit chan struct{}
	once sync.Once
	gone bool
	at   int // in the loop's bag
	of   membership
}

// Signal calls fn as a loop callback each time the process gets sig. Several handlers,
// on one loop or on many, each get every signal. Signals of one kind that come before
// fn has run may be combined into one call, as the system combines them. A signal that
// cannot be caught is an error. A goroutine waits for the signal until Remove.
func (l *Loop) Signal(sig os.Signal, fn func(os.Signal)) (*SignalHandler, error) {
	if err := l.check("Signal"); err != nil {
		return nil, err
	}
	if l.state.Load() >= loopClosing {
		return nil, ErrLoopClosed
	}
	if sig == nil || !sys.Catchable(sig) {
		return nil, fmt.Errorf("weir: signal %v cannot be caught", sig)
	}
	h := &SignalHandler{loop: l, fn: fn, ch: make(chan os.Signal, 8), quit: make(chan struct{})}
	l.signals.Add(h, &h.at)
	signal.Notify(h.ch, sig)
	// not simulated: signals come from the system.
	go h.wait()
	return h, nil
}

// wait turns signals into posts.
func (h *SignalHandler) wait() {
	for {
		// not simulated: as above.
		select {
		case sig := <-h.ch:
			if _, err := h.loop.Post(func() { h.call(sig) }); err != nil {
				return
			}
		case <-h.quit:
			return
		}
	}
}

func (h *SignalHandler) call(sig os.Signal) {
	if !h.gone {
		defer h.loop.guard("signal")
		h.fn(sig)
	}
}

// Remove ends the handler; removing the last one for a signal restores the signal's
// former disposition. Calling it again has no effect.
func (h *SignalHandler) Remove() {
	if h.gone || h.loop.check("Remove") != nil {
		return
	}
	h.gone = true
	h.of.leave()
	h.loop.signals.Remove(&h.at)
	signal.Stop(h.ch)
	h.once.Do(func() { close(h.quit) })
}
