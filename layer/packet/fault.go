package packet

import (
	"container/heap"
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/splitmix"
)

// Faults says what goes wrong with the datagrams of one direction. Chances are from 0 to
// 1. With the zero value nothing goes wrong.
type Faults struct {
	Loss      float64 // the datagram is dropped
	Corrupt   float64 // one bit of it is changed
	Duplicate float64 // it arrives twice
	// Reorder holds a datagram until the next one of its flow has passed, or for
	// ReorderWait, by default 100 ms. One datagram of a flow is held at a time, so 1
	// exchanges pairs.
	Reorder     float64
	ReorderWait time.Duration
	// Latency delays every datagram, and Jitter, drawn evenly from 0
	// up to it, each one further: datagrams may then overtake each other.
	Latency, Jitter time.Duration
	// Bandwidth is how many bytes a second go over each flow's line, one datagram
	// after another; 0 is no bound.
	Bandwidth int64
	// BlackHole discards what arrives once BlackHoleAfter bytes of the flow have passed.
	BlackHole      bool
	BlackHoleAfter int64
	// Window is how many bytes may be on their way at once; 1 MiB by default. There
	// are never more than 4096 datagrams. Those without room are dropped.
	Window int
}

// Bounds of what is on its way.
const (
	windowBytes   = 1 << 20
	windowPackets = 4096
	reorderWait   = 100 * time.Millisecond
	parcelsKept   = 64 // free ones
	parcelKept    = 2048
)

// FaultConfig is the faults of both directions: In of what is received, Out of what is
// sent.
//
// Every random choice is drawn from the seed, the number of the endpoint among
// those that the Layer was made for, the peer's address, the number of the flow among
// those of that address (its ports differ), and the number of the datagram in its flow
// and direction. So the same seed drops the same datagrams of a flow, whatever the
// flows of other addresses do.
type FaultConfig struct {
	In, Out Faults
	Seed    uint64
	Counts  *Counts // nil: nothing is counted
}

// Fault is the layer that treats datagrams as bad networks do.
func Fault(c FaultConfig) Layer {
	if c.Counts == nil {
		c.Counts = &Counts{}
	}
	var made atomic.Uint64
	return func(l *weir.Loop) Ends {
		f := &faulty{loop: l, counts: c.Counts, key: mix(mix(0, c.Seed), made.Add(1))}
		f.flows = newFlows(flowsMost, letGo)
		f.addrs = newFlows[uint64](flowsMost, nil)
		f.in = &lane{f: f, Faults: c.In, dir: 0}
		f.out = &lane{f: f, Faults: c.Out, dir: 1}
		f.in.timer, f.out.timer = l.NewTimer(f.pumpIn), l.NewTimer(f.pumpOut)
		for _, d := range []*lane{f.in, f.out} {
			if d.Window <= 0 {
				d.Window = windowBytes
			}
			if d.ReorderWait <= 0 {
				d.ReorderWait = reorderWait
			}
		}
		return f
	}
}

// mix puts another number into a key.
func mix(key, x uint64) uint64 { return splitmix.Mix(key + splitmix.Gamma + splitmix.Mix(x+1)) }

type faulty struct {
	Base
	loop    *weir.Loop
	counts  *Counts
	key     uint64
	flows   flows[faultyFlow]
	addrs   flows[uint64] // how many flows an address has had, by the address without a port
	in, out *lane
	closing bool
}

var (
	_ weir.PacketProtocol    = (*faulty)(nil)
	_ weir.TruncatedReceiver = (*faulty)(nil)
	_ weir.PacketCarrier     = (*faulty)(nil)
	_ weir.Holder            = (*faulty)(nil)
	_ weir.WritePauser       = (*faulty)(nil)
)

type faultyFlow struct {
	key    uint64
	n      [2]uint64    // datagrams, by direction
	passed [2]int64     // bytes
	held   [2]*parcel   // until the next has passed
	busy   [2]time.Time // until when the line is
}

// flow is that of a peer, made if there is none.
func (f *faulty) flow(peer weir.PacketAddr, now time.Time) *flow[faultyFlow] {
	if w := f.flows.find(peer, now); w != nil {
		return w
	}
	w := f.flows.add(peer, now)
	addr := weir.PacketAddr{Path: w.peer.Path}
	key := f.key
	if ip := w.peer.IP.Addr(); ip.IsValid() {
		addr.IP = netip.AddrPortFrom(ip, 0)
		b := ip.As16()
		key = mix(mix(key, binary.BigEndian.Uint64(b[:8])), binary.BigEndian.Uint64(b[8:]))
	}
	for i := range len(addr.Path) {
		key = mix(key, uint64(addr.Path[i]))
	}
	a := f.addrs.find(addr, now)
	if a == nil {
		a = f.addrs.add(addr, now)
	}
	w.data.key = mix(key, a.data)
	a.data++
	return w
}

// letGo releases what is held for a flow: it leaves when its time has come.
func letGo(w *flow[faultyFlow]) {
	for _, p := range w.data.held {
		if p != nil {
			p.flow = nil
		}
	}
}

func (f *faulty) PacketReceived(p []byte, from weir.PacketAddr) {
	if !f.closing {
		_ = f.in.take(p, from) // nothing fails on the way up
	}
}

// PacketTruncated implements weir.TruncatedReceiver: what was cut is counted and drawn
// for like others, and never held.
func (f *faulty) PacketTruncated(p []byte, from weir.PacketAddr) {
	f.counts.Seen.Add(1)
	w := f.flow(from, f.loop.Now())
	n := w.data.n[0]
	w.data.n[0]++
	if f.in.swallows(w) {
		f.counts.Swallowed.Add(1)
		return
	}
	if f.in.happens(f.in.Loss, w, n, drawLoss) {
		f.counts.Lost.Add(1)
		return
	}
	f.Base.PacketTruncated(p, from)
}

func (f *faulty) SendTo(p []byte, to weir.PacketAddr) (bool, error) {
	if f.Blocked() && !f.out.delays() {
		return false, nil
	}
	return true, f.out.take(p, to)
}

// put hands a datagram on.
func (f *faulty) put(dir int, p []byte, peer weir.PacketAddr, info *weir.PacketInfo) error {
	switch {
	case dir == 0:
		f.DeliverInfo(p, peer, info)
		return nil
	case info == nil:
		return f.Below().SendTo(p, peer)
	}
	return f.Below().SendInfo(p, peer, info)
}

func (f *faulty) pumpIn() {
	for !f.closing && !f.Paused() && f.in.next() {
	}
	if !f.closing && !f.Paused() {
		f.in.wait()
	}
}

func (f *faulty) pumpOut() {
	had := f.out.bytes
	for !f.Blocked() && f.out.next() {
	}
	if f.Blocked() {
		return
	}
	f.out.wait()
	if len(f.out.line) > 0 {
		return
	}
	if f.closing {
		f.Base.Close(false)
	} else if had > 0 {
		f.Drained()
	}
}

func (f *faulty) Held() int { return f.out.bytes }

func (f *faulty) ResumeReading() {
	f.Base.ResumeReading()
	if len(f.in.line) > 0 {
		f.in.timer.Set(0)
	}
}

func (f *faulty) ResumeWriting() {
	f.Base.ResumeWriting()
	f.pumpOut()
}

// Close implements weir.PacketCarrier: what is on its way out still leaves.
func (f *faulty) Close(abort bool) {
	f.in.clear()
	if abort {
		f.out.clear()
		f.Base.Close(true)
		return
	}
	f.closing = true
	f.pumpOut()
}

func (f *faulty) EndpointLost(err error) {
	f.in.clear()
	f.out.clear()
	f.Base.EndpointLost(err)
}

// What is drawn for a datagram.
const (
	drawLoss = iota
	drawCorrupt
	drawBit
	drawDuplicate
	drawReorder
	drawJitter
	draws = 16 // how far the numbers of two datagrams are apart
)

// lane is one direction.
type lane struct {
	Faults
	f     *faulty
	dir   int
	timer *weir.Timer

	line  parcels // what is on its way
	bytes int     // of it
	seq   uint64
	free  []*parcel
}

// parcel is a datagram on its way.
type parcel struct {
	at   time.Time
	seq  uint64
	data []byte
	peer weir.PacketAddr
	info *weir.PacketInfo // nil: nothing is known; &own
	own  weir.PacketInfo
	flow *flow[faultyFlow] // that holds it until the next has passed; nil: none does
	n    uint64            // its number there
	i    int               // in the line
}

// delays reports whether every datagram is kept for a time.
func (d *lane) delays() bool { return d.Latency > 0 || d.Jitter > 0 || d.Bandwidth > 0 }

func (d *lane) swallows(w *flow[faultyFlow]) bool {
	return d.BlackHole && w.data.passed[d.dir] >= d.BlackHoleAfter
}

func (d *lane) draw(w *flow[faultyFlow], n, what uint64) uint64 {
	return mix(w.data.key, n*2*draws+what*2+uint64(d.dir))
}

func (d *lane) happens(chance float64, w *flow[faultyFlow], n, what uint64) bool {
	return chance > 0 && float64(d.draw(w, n, what)>>11)/(1<<53) < chance
}

// take decides about a datagram.
func (d *lane) take(p []byte, peer weir.PacketAddr) error {
	c := d.f.counts
	c.Seen.Add(1)
	now := d.f.loop.Now()
	w := d.f.flow(peer, now)
	n := w.data.n[d.dir]
	w.data.n[d.dir]++
	if d.swallows(w) {
		c.Swallowed.Add(1)
		return nil
	}
	w.data.passed[d.dir] += int64(len(p))
	if d.happens(d.Loss, w, n, drawLoss) {
		c.Lost.Add(1)
		return nil
	}
	if len(p) > 0 && d.happens(d.Corrupt, w, n, drawCorrupt) {
		c.Corrupted.Add(1)
		changed := d.parcel(p, peer, nil)
		defer d.release(changed)
		bit := d.draw(w, n, drawBit) % uint64(8*len(p))
		changed.data[bit/8] ^= 1 << (bit % 8)
		p = changed.data
	}
	info := d.f.Received()
	if d.dir == 1 {
		info = d.f.Asked()
	}
	copies := 1
	if d.happens(d.Duplicate, w, n, drawDuplicate) {
		c.Duplicated.Add(1)
		copies = 2
	}
	held := w.data.held[d.dir]
	if held == nil && d.happens(d.Reorder, w, n, drawReorder) && d.room(len(p)) {
		c.Reordered.Add(1)
		copies--
		waits := d.parcel(p, peer, info)
		waits.flow, waits.n = w, n
		w.data.held[d.dir] = waits
		d.push(waits, now.Add(d.ReorderWait))
	}
	var err error
	for range copies {
		if e := d.send(p, peer, info, w, n, now); e != nil {
			err = e
		}
	}
	// What was sent may have ended the endpoint, and with it what is held.
	if held != nil && w.data.held[d.dir] == held {
		d.unhold(held)
	}
	return err
}

// unhold sends on a datagram that waited for the next one of its flow.
func (d *lane) unhold(p *parcel) {
	w := p.flow
	d.remove(p)
	w.data.held[d.dir] = nil
	if err := d.send(p.data, p.peer, p.info, w, p.n, d.f.loop.Now()); err != nil {
		d.f.Failed(err, p.peer)
	}
	d.release(p)
}

// send hands a datagram on, at once or after its time on the line.
func (d *lane) send(p []byte, peer weir.PacketAddr, info *weir.PacketInfo, w *flow[faultyFlow], n uint64, now time.Time) error {
	if !d.delays() {
		return d.f.put(d.dir, p, peer, info)
	}
	if !d.room(len(p)) {
		d.f.counts.Full.Add(1)
		return nil
	}
	at := now
	if d.Bandwidth > 0 {
		if w.data.busy[d.dir].After(at) {
			at = w.data.busy[d.dir]
		}
		at = at.Add(time.Duration(float64(len(p)) / float64(d.Bandwidth) * 1e9))
		w.data.busy[d.dir] = at
	}
	at = at.Add(d.Latency)
	if d.Jitter > 0 {
		at = at.Add(time.Duration(d.draw(w, n, drawJitter) % uint64(d.Jitter)))
	}
	d.push(d.parcel(p, peer, info), at)
	return nil
}

func (d *lane) room(n int) bool {
	return len(d.line) < windowPackets && d.bytes+n <= d.Window
}

// next hands on the first datagram whose time has come, and reports whether there was
// one.
func (d *lane) next() bool {
	if len(d.line) == 0 || d.line[0].at.After(d.f.loop.Now()) {
		return false
	}
	p := d.line[0]
	if p.flow != nil {
		d.unhold(p)
		return true
	}
	d.remove(p)
	if err := d.f.put(d.dir, p.data, p.peer, p.info); err != nil {
		d.f.Failed(err, p.peer)
	}
	d.release(p)
	return true
}

// push puts a datagram on its way.
func (d *lane) push(p *parcel, at time.Time) {
	p.at, p.seq = at, d.seq
	d.seq++
	d.bytes += len(p.data)
	heap.Push(&d.line, p)
	if p.i == 0 {
		d.wait()
	}
}

func (d *lane) remove(p *parcel) {
	heap.Remove(&d.line, p.i)
	d.bytes -= len(p.data)
}

// wait sets the timer for the first arrival.
func (d *lane) wait() {
	if len(d.line) > 0 {
		d.timer.Set(max(0, d.line[0].at.Sub(d.f.loop.Now())))
	}
}

// clear drops what is on its way.
func (d *lane) clear() {
	d.timer.Stop()
	for _, p := range d.line {
		if p.flow != nil {
			p.flow.data.held[d.dir] = nil
		}
	}
	d.line, d.bytes, d.free = nil, 0, nil
}

// parcel makes a copy of a datagram.
func (d *lane) parcel(data []byte, peer weir.PacketAddr, info *weir.PacketInfo) *parcel {
	var p *parcel
	if n := len(d.free); n > 0 {
		p = d.free[n-1]
		d.free = d.free[:n-1]
	} else {
		p = &parcel{}
	}
	p.data, p.peer = append(p.data[:0], data...), peer
	if info != nil {
		p.own = *info
		p.info = &p.own
	}
	return p
}

// release keeps a parcel for the next datagram.
func (d *lane) release(p *parcel) {
	if len(d.free) < parcelsKept && cap(p.data) <= parcelKept {
		*p = parcel{data: p.data[:0]}
		d.free = append(d.free, p)
	}
}

// parcels is a heap by the time of arrival.
type parcels []*parcel

var _ heap.Interface = (*parcels)(nil)

func (h parcels) Len() int { return len(h) }
func (h parcels) Less(i, j int) bool {
	if h[i].at.Equal(h[j].at) {
		return h[i].seq < h[j].seq
	}
	return h[i].at.Before(h[j].at)
}

func (h parcels) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].i, h[j].i = i, j
}

func (h *parcels) Push(x any) {
	p := x.(*parcel)
	p.i = len(*h)
	*h = append(*h, p)
}

func (h *parcels) Pop() any {
	old := *h
	n := len(old) - 1
	p := old[n]
	old[n] = nil
	*h = old[:n]
	return p
}
