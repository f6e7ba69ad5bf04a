package dns

import (
	"net/netip"

	"github.com/weir-io/weir"
)

// AskOn makes one loop ask for all: addresses that LookupNetIP is to find on other loops,
// for askers of For too, are looked up by home, unless no server is asked for them. So
// loops that share the resolver share its cache, what it knows about servers, its limits
// and its WithSilence, at the price of two posts for a name. Lookup and LookupAddr still
// ask on the loop that they are given. Call it once, before the second loop runs; home must
// not be closed before the others. Close of home drops what they ask, with
// weir.ErrLoopClosed if it has not begun.
func (r *Resolver) AskOn(home *weir.Loop) { r.home = home }

// sent is a lookup that another loop makes.
type sent struct {
	l    *weir.Loop
	done func([]netip.Addr, error)
	over bool // it has ended or was canceled: l's to know

	// These are the other loop's.
	stop     func()
	canceled bool
}

// lookupAt is lookupNetIP for l, made by home.
func (r *Resolver) lookupAt(home, l *weir.Loop, asker netip.Prefix, network, host string, done func([]netip.Addr, error)) (cancel func()) {
	s := &sent{l: l, done: done}
	_, err := home.PostOr(func() {
		if !s.canceled {
			s.stop = r.lookupNetIP(home, asker, network, host, s.found)
		}
	}, func() { s.found(nil, &Error{Name: host, Err: weir.ErrLoopClosed}) })
	if err != nil {
		call := l.Soon(func() { done(nil, &Error{Name: host, Err: err}) })
		return func() { call.Cancel() }
	}
	return func() {
		if s.over {
			return
		}
		s.over = true
		_, _ = home.PostOr(func() { // a closed loop looks for nothing
			s.canceled = true
			if s.stop != nil {
				s.stop()
			}
		}, func() {})
	}
}

// found is called by the loop that looked.
func (s *sent) found(addrs []netip.Addr, err error) {
	_, _ = s.l.PostOr(func() { // a closed loop waits for nothing
		if !s.over {
			s.over = true
			s.done(addrs, err)
		}
	}, func() {})
}
