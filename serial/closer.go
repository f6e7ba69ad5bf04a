package serial

import (
	"errors"
	"time"

	"github.com/weir-io/weir"
)

// How long a line that is being closed is waited for: beyond what it has for its last bytes,
// and when the loop ends.
const (
	closeStuck  = time.Second
	closeAtLast = time.Second
)

// errStuck is the reason of a connection whose line could not be closed in time.
var errStuck = errors.New("serial: the driver has not finished closing the line")

// closer closes a line on a goroutine of its own. It is a weir.Source: the goroutine wakes
// the loop, and the end of the loop is heard of.
type closer struct {
	port     *Port
	done     chan struct{} // closed once the line is
	cut      bool          // the last bytes did not leave in time; to be read after done
	wake     func()
	patience *weir.Timer
	then     func(error) // nil: it was called, or no one waits
}

var _ weir.Source = (*closer)(nil)

// closeLine has a goroutine call fn, which closes the line of p and reports whether bytes
// were lost; then is called on the loop's goroutine, perhaps before it returns. The closer
// is nil if that is over.
func closeLine(p *Port, fn func() (cut bool), then func(error)) *closer {
	c := &closer{port: p, done: make(chan struct{}), then: then}
	ended := p.loop.AddSource(c) != nil
	wake := c.wake
	go func() {
		c.cut = fn()
		close(c.done)
		if wake != nil {
			wake()
		}
	}()
	if ended {
		c.atLast()
		return nil
	}
	c.patience = p.loop.After(p.cfg.CloseWait+closeStuck, func() { c.end(errStuck) })
	return c
}

// Attach implements weir.Source.
func (c *closer) Attach(wake func()) error {
	c.wake = wake
	return nil
}

// Dispatch implements weir.Source: the line is closed.
func (c *closer) Dispatch() {
	c.port.closer = nil
	_ = c.port.loop.RemoveSource(c) // Detach does the rest
}

// Detach implements weir.Source: the line is closed, or the loop ends.
func (c *closer) Detach() {
	c.patience.Stop()
	c.atLast()
}

// atLast waits for the goroutine, though not for long: the process may be about to end, and
// the line is to be left as it was.
func (c *closer) atLast() {
	if c.then == nil {
		return // there is no one to tell, or it was stuck already
	}
	select {
	case <-c.done:
	case <-time.After(closeAtLast):
		c.end(errStuck)
		return
	}
	if c.cut {
		c.end(ErrStopped)
		return
	}
	c.end(nil)
}

func (c *closer) end(err error) {
	if then := c.then; then != nil {
		c.then = nil
		then(err)
	}
}
