package weir

import (
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
)

// Group is several loops, each on a goroutine of its own, that share listeners.
// A connection lives on one loop from beginning to end; a new one goes to the
// loop that has the fewest.
type Group struct {
	loops []*Loop
	load  []atomic.Int64 // open connections placed on each loop
}

// GroupOf makes a group of loops that were made before, such as those of a simulated
// world. They are the group's from then on: Run, Stop, Shutdown and Close act on all of
// them. It fails if there is none, or one is in a group already. loops is copied.
func GroupOf(loops ...*Loop) (*Group, error) {
	if len(loops) == 0 {
		return nil, errNoLoops
	}
	g := &Group{loops: slices.Clone(loops), load: make([]atomic.Int64, len(loops))}
	for i, l := range loops {
		if l.group != nil || slices.Contains(loops[:i], l) {
			return nil, errors.New("weir: a loop can be in one group only, once")
		}
	}
	for _, l := range loops {
		l.group = g
	}
	return g, nil
}

var errNoLoops = errors.New("weir: a group needs at least one loop")

// WithGroup spreads the connections that a listener accepts over the loops of g, of which
// the listener's own must be one: a new one goes to the loop that has the fewest. The
// factory then runs on the goroutine of the loop that the connection is on, which
// Transport.Loop tells, and so it must be safe for several at once. Listen fails with
// ErrOtherLoop for a loop that is not in g, and together with WithTenant. nil, the default,
// keeps the connections on the listener's loop.
func WithGroup(g *Group) AcceptOption { return option(func(c *connConfig) { c.group = g }) }

// forGroup checks that the group of WithGroup can be used by a listener of l.
func (c *connConfig) forGroup(l *Loop) error {
	if c.group != nil && c.group != l.group {
		return ErrOtherLoop
	}
	return nil
}

// NewGroup makes n loops with the same options. WithBackend cannot be among
// them, since a backend drives one loop.
func NewGroup(n int, opts ...LoopOption) (*Group, error) {
	if n < 1 {
		return nil, errNoLoops
	}
	g := &Group{load: make([]atomic.Int64, n)}
	for range n {
		l, err := NewLoop(opts...)
		if err != nil {
			return nil, errors.Join(err, g.Close())
		}
		l.group = g
		g.loops = append(g.loops, l)
	}
	return g, nil
}

// Loops returns the loops; the slice is the group's.
func (g *Group) Loops() []*Loop { return g.loops }

// Listen is Loop.Listen on the first loop, with the connections spread over
// all. f runs on the goroutine of the loop that the connection is placed on, so
// it must be safe for several at once. Call it before Run, or from the first
// loop's goroutine.
func (g *Group) Listen(netw, address string, f Factory, opts ...ListenOption) (*Listener, error) {
	return g.loops[0].Listen(netw, address, f, append(opts, WithGroup(g))...)
}

// Run runs every loop and returns when all have ended, with their errors. If
// one fails the others are stopped.
func (g *Group) Run() error {
	errs := make([]error, len(g.loops))
	var wg sync.WaitGroup
	for i, l := range g.loops[1:] {
		wg.Go(func() {
			if errs[i+1] = l.Run(); errs[i+1] != nil {
				g.Stop()
			}
		})
	}
	if errs[0] = g.loops[0].Run(); errs[0] != nil {
		g.Stop()
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Stop stops every loop. Any goroutine may call it.
func (g *Group) Stop() {
	for _, l := range g.loops {
		l.Stop()
	}
}

// Shutdown ends every loop gracefully, see Loop.Shutdown: first the listeners end,
// then, once every accepted connection is on its loop, the loops. Run returns when all
// of them have ended. Any goroutine may call it.
func (g *Group) Shutdown(d time.Duration) {
	first := g.loops[0]
	// A closed group has ended.
	_ = first.postInternal(func() {
		began := first.Now()
		first.end(d, func() {
			for _, l := range g.loops[1:] {
				l.Shutdown(d - first.Now().Sub(began))
			}
		})
	})
}

// Close closes every loop, all at the same time; see Loop.Close. What they cut is
// reported in one *CutError.
func (g *Group) Close() error {
	errs := make([]error, len(g.loops))
	var wg sync.WaitGroup
	for i, l := range g.loops {
		wg.Go(func() { errs[i] = l.Close() })
	}
	wg.Wait()
	var all *CutError
	for i, err := range errs {
		var cut *CutError
		if !errors.As(err, &cut) {
			continue
		}
		if all == nil {
			all = cut
			continue
		}
		all.add(cut)
		if err == error(cut) { //nolint:errorlint // nothing else is in it
			errs[i] = nil
		}
	}
	return errors.Join(errs...)
}

// least returns the index of the loop with the fewest connections; the first one if several
// are equal.
func (g *Group) least() int {
	best := 0
	for i := range g.load {
		if g.load[i].Load() < g.load[best].Load() {
			best = i
		}
	}
	return best
}

func (g *Group) index(l *Loop) int {
	for i := range g.loops {
		if g.loops[i] == l {
			return i
		}
	}
	return 0
}

// shortOf tells the group's other loops that l has run out of descriptors: they would go on
// accepting connections, which take the descriptors that those on l wait for.
func (g *Group) shortOf(l *Loop) {
	for _, other := range g.loops {
		if other != l {
			// A closed loop accepts nothing.
			_ = other.postInternal(func() {
				if other.listeners.Len() > 0 {
					other.beginShortage()
				}
			})
		}
	}
}

// starves reports whether a connect on a loop of the group waits for a descriptor. One whose
// time is up does not count, lest a loop that does not turn keep the others from accepting.
func (g *Group) starves(now time.Time) bool {
	return slices.ContainsFunc(g.loops, func(l *Loop) bool {
		return l.short.starves.Load() > now.UnixNano() && l.state.Load() < loopClosing
	})
}

// left records that a connection placed on l is gone.
func (g *Group) left(l *Loop) { g.load[g.index(l)].Add(-1) }

// place gives a connection that ln accepted to a loop.
func (g *Group) place(ln *Listener, h backend.Handle, peer *backend.Addr) {
	i := g.least()
	l := g.loops[i]
	var moved carrier
	if l != ln.loop {
		var err error
		if moved, err = ln.loop.detach(h); err != nil { // it cannot move
			i, l = g.index(ln.loop), ln.loop
		}
	}
	g.load[i].Add(1)
	if l == ln.loop {
		ln.serve(l, h, peer)
		return
	}
	var from *backend.Addr
	if peer != nil {
		a := *peer
		from = &a
	}
	ln.conns.Add(1)
	ln.loop.away.Add(1)
	posted := l.postInternal(func() {
		err := ErrLoopClosed
		var nh backend.Handle
		if l.state.Load() < loopClosing {
			if nh, err = moved.adopt(l.be); err != nil {
				l.report(sysError("adopt", err))
			}
		}
		if err != nil {
			moved.discard()
			g.left(l)
			ln.left(peerIP(from))
			ln.goneElsewhere()
			return
		}
		ln.serve(l, nh, from)
	})
	if !posted { // that loop is closed
		moved.discard()
		g.left(l)
		ln.loop.away.Add(-1)
		ln.left(peerIP(from))
		ln.connGone()
	}
}

// carrier is a connection on its way from one loop to another, while no backend has it.
type carrier struct {
	adopt   func(to backend.Backend) (backend.Handle, error)
	discard func()
}

// detach takes a fresh connection out of l's backend. On an error it stays where it
// was.
func (l *Loop) detach(h backend.Handle) (c carrier, err error) {
	var conn io.Closer
	err = backend.ErrUnsupported
	if m, ok := l.be.(backend.Mover); ok {
		conn, err = m.Detach(h)
	}
	if err != nil && l.caps.Descriptors {
		l.shutHandle(h, backend.Forget)
		c.adopt = func(to backend.Backend) (backend.Handle, error) { return to.Adopt(int(h)) }
		c.discard = func() { sys.CloseAll(int(h)) }
		return c, nil
	}
	if err != nil {
		return c, err
	}
	c.adopt = func(to backend.Backend) (nh backend.Handle, err error) {
		err = backend.ErrUnsupported
		if m, ok := to.(backend.Mover); ok {
			nh, err = m.AdoptConn(conn)
		}
		if d, ok := conn.(interface{ Descriptor() int }); ok && errors.Is(err, backend.ErrUnsupported) {
			return to.Adopt(d.Descriptor()) // a backend of another kind
		}
		return nh, err
	}
	c.discard = func() { _ = conn.Close() }
	return c, nil
}
