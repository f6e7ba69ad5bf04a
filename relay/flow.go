package relay

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/weir-io/weir"
)

// PacketFlow is what passes between one peer and its target, and the protocol of
// the endpoint that sends on for the peer.
type PacketFlow struct {
	p      *Packets
	peer   weir.PacketAddr
	asked  weir.PacketInfo // the relay's address that the peer sends to, if it is one of several
	target *packetTarget
	picked func(error) // PacketConfig.Pick's done; nil: it has none, or was called
	over   bool

	path PacketPath           // nil: there is an endpoint
	up   *weir.PacketEndpoint // nil: it is not open yet
	v4   bool                 // up is of IPv4
	to   netip.AddrPort       // not valid: no address is known yet
	wide bool                 // answers come from other addresses than to
	held [][]byte             // that wait for an address

	count tally
	added bool // to the relay's total
	busy  int  // datagrams of the peer that are on their way through send
	began time.Time
	last  time.Time // when something passed
	// Since when the address has been silent: zero when it has answered the last
	// datagram, or once all of them were tried: then no one answers here at all, or
	// nothing is to be answered.
	silent   time.Time
	settled  bool
	answered bool
	moves    int // to other addresses, since an answer

	byAge, ofHolder link[PacketFlow]
	holder          *holder
	sibling         *PacketFlow // the peer's next one: it asked at another address
}

const (
	// silentFirst is how long an address that has never answered a flow may be silent
	// before the next one is tried, silentLater one that has.
	silentFirst = time.Second
	silentLater = 5 * time.Second
	// heldMost is how many datagrams of a flow wait for a lookup, heldBytes how many
	// bytes of all flows.
	heldMost  = 8
	heldBytes = 256 << 10
)

// Peer is where the flow's datagrams come from.
func (f *PacketFlow) Peer() weir.PacketAddr { return f.peer }

// Target is the place of the flow's target in PacketConfig.Targets.
func (f *PacketFlow) Target() int { return f.target.at }

// Received is called by a PacketPath with a datagram from the target; data is lent
// for the call.
func (f *PacketFlow) Received(data []byte) {
	if !f.over {
		f.answer(data)
	}
}

// Failed is called by a PacketPath that has failed: err is reported to
// PacketConfig.Trouble, and the flow ends.
func (f *PacketFlow) Failed(err error) {
	if f.over {
		return
	}
	f.p.trouble(err, weir.PacketAddr{})
	f.leave(err)
	f.end()
}

// Failing is called by a PacketPath that has taken a datagram and could not send it: err says
// why. Once the flow has ended, it is only counted.
func (f *PacketFlow) Failing(err error) {
	f.p.recallIn(f.counts(), A, err)
	if !f.over {
		f.p.trouble(err, weir.PacketAddr{})
	}
}

// counts is where the flow is counted: in the relay's total once it has ended.
func (f *PacketFlow) counts() *tally {
	if f.added {
		return &f.p.total
	}
	return &f.count
}

// lose counts a datagram that a side sent, unless end has.
func (f *PacketFlow) lose(s Side, err error) {
	if !f.added {
		f.p.lose(&f.count, s, reasonOf(err), 1)
	}
}

// choose picks the flow's target.
func (f *PacketFlow) choose() {
	f.target, f.picked = f.p.targets[0], nil
	if f.p.config.Pick != nil {
		n, done := f.p.config.Pick(f.peer)
		f.target, f.picked = f.p.targets[n], done
	}
}

// leave says how it went with the target that was picked.
func (f *PacketFlow) leave(err error) {
	if done := f.picked; done != nil {
		f.picked = nil
		done(err)
	}
}

// refuse ends a flow that could not begin, with its first datagram.
func (f *PacketFlow) refuse(err error) {
	f.over = true
	f.leave(nil) // it is not the target's doing
	if descriptorsOut(err) {
		f.p.noFlow(&f.p.total, err)
		return
	}
	f.p.lose(&f.p.total, A, reasonOf(err), 1)
	f.p.trouble(err, weir.PacketAddr{})
}

// open opens the endpoint that sends to f.to, unless that is done.
func (f *PacketFlow) open() error {
	v4 := f.to.Addr().Is4()
	if f.up != nil {
		if f.v4 == v4 {
			return nil
		}
		f.shut()
	}
	network, any := "udp6", "[::]:0"
	if v4 {
		network, any = "udp4", "0.0.0.0:0"
	}
	up, err := f.p.config.UpListen(f, network, any, &flowEnd{f: f}, f.p.config.UpOptions...)
	if descriptorsOut(err) && f.p.makeRoom(err) && !f.over {
		up, err = f.p.config.UpListen(f, network, any, &flowEnd{f: f}, f.p.config.UpOptions...)
	}
	if err != nil {
		return err
	}
	if f.over { // what was called meanwhile has ended it
		_ = up.Close() // nil on its own loop
		return weir.ErrClosed
	}
	f.up, f.v4 = up, v4
	return nil
}

// shut closes the endpoint.
func (f *PacketFlow) shut() {
	if f.up != nil {
		_ = f.up.Close() // nil on its own loop; what is buffered still goes out
		f.up = nil
	}
}

func (f *PacketFlow) passed(from Side, n int) {
	f.count.packets[from]++
	f.count.bytes[from] += int64(n)
}

// received takes what the peer sent.
func (f *PacketFlow) received(data []byte) {
	f.count.received[A]++
	f.busy++
	f.send(data)
	f.busy--
}

// send sends on what the peer sent.
func (f *PacketFlow) send(data []byte) {
	now := f.p.loop.Now()
	f.last = now
	f.p.flows.touch(f)
	if f.path != nil {
		f.sent(f.path.Send(data), len(data))
		return
	}
	if f.isSilent(now) {
		f.move(nil)
	}
	if f.settled {
		f.followName()
	}
	if !f.to.IsValid() && !f.aim(data) {
		return
	}
	// Each address at most once, also those of a target that is picked meanwhile.
	var err error
	for range 1 + f.target.count() + len(f.p.targets) {
		if err = f.open(); err == nil {
			err = f.up.SendTo(data, weir.PacketAddr{IP: f.to})
		}
		if err == nil && f.silent.IsZero() && !f.settled {
			f.silent = now
		}
		if f.over {
			f.lose(A, weir.ErrClosed)
			return
		}
		if !addressFails(err) || !f.move(err) {
			f.sent(err, len(data))
			return
		}
		if !f.to.IsValid() && !f.aim(data) {
			return
		}
	}
	f.lose(A, err)
}

// followName has a flow that no address has answered try again once its name has another
// one.
func (f *PacketFlow) followName() {
	f.target.look(true)
	if f.target.count() == 0 || slices.Contains(f.target.addrs, f.to) {
		return
	}
	f.settled, f.moves = false, 0
	f.to = f.target.first()
	f.wide = f.target.wide(f.to)
}

// sent counts a datagram to the target.
func (f *PacketFlow) sent(err error, n int) {
	if f.added {
		return // end has counted it
	}
	if err == nil {
		f.passed(A, n)
		return
	}
	if descriptorsOut(err) && f.up == nil && f.path == nil {
		f.p.noFlow(&f.count, err)
		return
	}
	f.lose(A, err)
	if !errors.Is(err, weir.ErrSendBufferFull) {
		f.p.trouble(err, weir.PacketAddr{IP: f.to})
	}
}

// aim finds an address to send to; while there is none, data waits for one. It
// reports false if there is none.
func (f *PacketFlow) aim(data []byte) bool {
	if a := f.target.first(); a.IsValid() {
		f.to, f.wide = a, f.target.wide(a)
		return true
	}
	switch {
	case f.over:
		f.lose(A, weir.ErrClosed)
		return false
	case len(f.held) == heldMost || f.p.waiting+len(data) > heldBytes:
		f.p.lose(&f.count, A, noRoom, 1)
		return false
	case !f.target.look(true):
		f.p.lose(&f.count, A, noTarget, 1)
		return false
	}
	f.held = append(f.held, append([]byte{}, data...))
	f.p.waiting += len(data)
	if len(f.held) == 1 {
		f.target.waiters = append(f.target.waiters, f)
	}
	return false
}

// release sends what has waited for an address, or drops it.
func (f *PacketFlow) release(send bool) {
	held := f.held
	f.held = nil
	f.busy += len(held)
	for _, data := range held {
		f.p.waiting -= len(data)
		switch {
		case f.added:
		case f.over:
			f.lose(A, weir.ErrClosed)
		case send:
			f.send(data)
		default:
			f.p.lose(&f.count, A, noTarget, 1)
		}
		f.busy--
	}
}

// isSilent reports whether the address has had its time to answer.
func (f *PacketFlow) isSilent(now time.Time) bool {
	if f.silent.IsZero() || f.wide {
		return false
	}
	patience := silentFirst
	if f.answered {
		patience = silentLater
	}
	return now.Sub(f.silent) >= patience
}

// move goes on to the target's next address, for a reason, or for silence (nil).
// Once all of them were tried, the target has failed: another one is picked, where
// there are several. It reports false if there is nowhere else to go.
func (f *PacketFlow) move(err error) bool {
	f.target.look(true)
	f.silent = time.Time{}
	f.moves++
	next := f.target.after(f.to)
	if f.moves < f.target.count() {
		f.to, f.wide = next, f.target.wide(next)
		return true
	}
	f.moves = 0
	if err == nil { // one that only sends must not be led around forever
		f.settled = !f.answered
		if f.answered {
			f.to, f.wide = next, f.target.wide(next)
		}
		return true
	}
	f.to, f.wide = next, f.target.wide(next)
	if f.picked == nil {
		return false
	}
	before := f.target
	f.leave(err)
	if f.over {
		return false
	}
	f.choose()
	if f.target == before || f.over {
		return false
	}
	f.shut() // the other target's endpoints may have other layers
	a := f.target.first()
	f.to, f.wide = a, a.IsValid() && f.target.wide(a)
	if !a.IsValid() {
		f.target.look(true)
	}
	return true
}

// answer passes on what the target sent, from the address that the peer asked. It is
// the one place that sends to peers.
func (f *PacketFlow) answer(data []byte) {
	f.last = f.p.loop.Now()
	f.p.flows.touch(f)
	f.silent, f.answered, f.settled, f.moves = time.Time{}, true, false, 0
	f.count.received[B]++
	if err := f.p.in.SendInfo(data, f.peer, &f.asked); err != nil {
		f.lose(B, err)
		if !errors.Is(err, weir.ErrSendBufferFull) {
			f.p.trouble(err, f.peer)
		}
		return
	}
	f.passed(B, len(data))
}

// end ends the flow.
func (f *PacketFlow) end() {
	if f.over {
		return
	}
	f.over = true
	if f.busy > 0 { // what is called inside send has ended the flow
		f.p.lose(&f.count, A, ended, f.busy)
	}
	if len(f.held) > 0 {
		f.target.gaveUp()
	}
	f.release(false)
	p := f.p
	if f.holder != nil {
		p.flows.remove(f)
	}
	f.shut()
	if f.path != nil {
		f.path.Close()
	}
	f.leave(nil)
	p.total.add(&f.count)
	f.added = true
	if p.config.Ended != nil && f.holder != nil {
		c := f.count.count()
		c.Took = p.loop.Now().Sub(f.began)
		p.config.Ended(f.peer, f.target.text, c)
	}
}

// flowEnd is the protocol of an endpoint of a flow, which may have another one by
// now.
type flowEnd struct {
	f       *PacketFlow
	up      *weir.PacketEndpoint
	dropped uint64 // by the system, for up's full receive buffer
}

var (
	_ weir.PacketProtocol = (*flowEnd)(nil)
	_ weir.PacketFailer   = (*flowEnd)(nil)
)

func (e *flowEnd) current() bool { return !e.f.over && e.up != nil && e.f.up == e.up }

func (e *flowEnd) EndpointMade(up *weir.PacketEndpoint) { e.up = up }

// PacketReceived implements weir.PacketProtocol. What does not come from the
// target is not for the peer.
func (e *flowEnd) PacketReceived(data []byte, from weir.PacketAddr) {
	f := e.f
	if e.up != nil {
		if n := e.up.Dropped(); n != e.dropped {
			f.p.beUnread(f.counts(), B, int(n-e.dropped))
			e.dropped = n
		}
	}
	if !e.current() || from.IP != f.to && !(f.wide && f.target.answersFor(f.to, from.IP)) {
		return
	}
	if f.target.best != f.to && slices.Contains(f.target.addrs, f.to) { // the name may have moved
		f.target.best = f.to
	}
	f.answer(data)
}

func (e *flowEnd) PacketFailed(err error, to weir.PacketAddr) {
	f := e.f
	switch {
	case errors.Is(err, weir.ErrTruncated): // an answer, too long to be taken
		if to.IP == f.to {
			c := f.counts()
			c.received[B]++
			f.p.lose(c, B, tooLong, 1)
		}
	case to != (weir.PacketAddr{}):
		f.p.recallIn(f.counts(), A, err)
	}
	if !e.current() {
		return
	}
	f.p.trouble(err, to)
	if to.IP == f.to && addressFails(err) {
		f.move(err)
	}
}

func (e *flowEnd) EndpointLost(err error) {
	if e.current() {
		e.f.up = nil
		if err != nil {
			e.f.p.trouble(err, weir.PacketAddr{IP: e.f.to})
		}
		e.f.end()
	}
}
