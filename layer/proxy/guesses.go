package proxy

import (
	"container/list"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// The bounds on guessing passwords, unless WithGuesses sets one.
const (
	defaultGuesses = 60              // wrong ones a minute, from one address
	guessBurst     = 10              // of them at once
	guessWait      = 5 * time.Second // the longest that one waits for its turn
	guessPeers     = 4096            // addresses that are remembered
)

// ErrThrottled is the cause when a proxy's client was refused without checking
// its password, because too many wrong ones have come from its address. It
// matches ErrAuth, and the client sees no difference.
var ErrThrottled = fmt.Errorf("%w: too many wrong passwords have come from its address", ErrAuth)

// WithGuesses bounds how many wrong passwords a minute one address (a /64 of
// IPv6) may try at a proxy with users; the default is 60, and 0 means no bound.
// Ten may come at once; after that each waits for its turn, and one whose turn
// would be in more than 5 s is refused with ErrThrottled. Right passwords cost
// nothing. 4,096 addresses are remembered; beyond that, the one that has not
// guessed for longest is forgotten.
func WithGuesses(perMinute int) ServerOption {
	return func(c *serverConfig) { c.perMinute = max(perMinute, 0) }
}

// guesses counts the wrong passwords of each address as a point in time: when
// the next one would be due if they came at an even rate. A password that comes
// more than guessBurst turns early has to wait (RFC 2697's buckets; ITU-T
// I.371's GCRA). Any goroutine may use it.
type guesses struct {
	every time.Duration
	mu    sync.Mutex
	all   map[netip.Prefix]*list.Element // of *guesser
	used  list.List                      // the one that guessed last in front
}

type guesser struct {
	peer netip.Prefix
	due  time.Time
}

// newGuesses returns nil if there is no bound.
func newGuesses(perMinute int) *guesses {
	if perMinute == 0 {
		return nil
	}
	return &guesses{every: time.Minute / time.Duration(perMinute), all: map[netip.Prefix]*list.Element{}}
}

// take counts a guess: it may be checked after wait, or not at all.
func (g *guesses) take(peer netip.Prefix, now time.Time) (wait time.Duration, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.of(peer, now)
	if e.due.Before(now) {
		e.due = now
	}
	if wait = e.due.Sub(now) - (guessBurst-1)*g.every; wait > guessWait {
		return 0, false
	}
	e.due = e.due.Add(g.every)
	return max(wait, 0), true
}

// right takes back a guess whose password turned out to be right.
func (g *guesses) right(peer netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if at := g.all[peer]; at != nil {
		e := at.Value.(*guesser)
		e.due = e.due.Add(-g.every)
	}
}

// of returns the entry of an address, and makes it if there is none.
func (g *guesses) of(peer netip.Prefix, now time.Time) *guesser {
	if at := g.all[peer]; at != nil {
		g.used.MoveToFront(at)
		return at.Value.(*guesser)
	}
	for n := 0; g.used.Len() > 0 && n < 2; n++ { // entries whose time is up go first
		at := g.used.Back()
		e := at.Value.(*guesser)
		if g.used.Len() < guessPeers && !e.due.Before(now) {
			break
		}
		delete(g.all, e.peer)
		g.used.Remove(at)
	}
	e := &guesser{peer: peer}
	g.all[peer] = g.used.PushFront(e)
	return e
}
