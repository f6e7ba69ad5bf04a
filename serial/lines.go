package serial

import (
	"sync/atomic"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/sys"
)

// linesEvery is how often the lines of a device are looked at: the system's own call that
// waits for a change (TIOCMIWAIT) cannot be ended.
const linesEvery = 50 * time.Millisecond

// linesWatch looks at a device's lines on a goroutine of its own, since a driver may block
// in that. It is a weir.Source.
type linesWatch struct {
	port  *Port
	wake  func()
	lines atomic.Uint32 // the last state
	told  Line
	stop  chan struct{}
	over  bool
}

var _ weir.Source = (*linesWatch)(nil)

// watchLines begins to look at the lines of a device that was opened, if Config wants that.
// A device that has none, as a pseudo-terminal, is not looked at.
func (p *Port) watchLines(o *opening) error {
	if p.cfg.LinesChanged == nil || o.linesErr != nil {
		return nil
	}
	now := o.lines
	fd, err := sys.Dup(p.fd)
	if err != nil {
		return err
	}
	w := &linesWatch{port: p, stop: make(chan struct{}), told: Line(now)}
	w.lines.Store(uint32(now))
	if err := p.loop.AddSource(w); err != nil {
		sys.CloseAll(fd)
		return err
	}
	p.watch = w
	lines := p.cfg.lines
	go func() {
		defer sys.CloseAll(fd)
		tick := time.NewTicker(linesEvery)
		defer tick.Stop()
		for {
			select {
			case <-w.stop:
				return
			case <-tick.C:
			}
			now, err := lines(fd)
			if err != nil {
				return // it is gone, of which the port hears otherwise
			}
			if w.lines.Swap(uint32(now)) != uint32(now) {
				w.wake()
			}
		}
	}()
	p.cfg.LinesChanged(w.told)
	return nil
}

// Attach implements weir.Source.
func (w *linesWatch) Attach(wake func()) error {
	w.wake = wake
	return nil
}

// Dispatch implements weir.Source.
func (w *linesWatch) Dispatch() {
	if now := Line(w.lines.Load()); now != w.told && w.port.watch == w {
		w.told = now
		w.port.cfg.LinesChanged(now)
	}
}

// Detach implements weir.Source: the goroutine ends within linesEvery, or when the driver
// lets it.
func (w *linesWatch) Detach() {
	if !w.over {
		w.over = true
		close(w.stop)
	}
}
