package weir

// Forwarder is the ability of a transport to send, without a copy, bytes that were lent
// to another transport's protocol. Find it with a type assertion on the transport
// itself, not with As: a Forwarder found below a transport that changes bytes would
// send them unchanged.
type Forwarder interface {
	// Forward is Write for p, which is all or part of the bytes that a DataReceived was
	// lent. No one may change those bytes any more: neither the caller nor anyone they
	// are lent to next. If a layer delivers many pieces at once (Feed.DeliverMany),
	// what is forwarded of them is sent together, when the last one has been delivered.
	// Until then it counts as buffered, and PauseWriting may come as late as that.
	Forward(p []byte) (int, error)
}

// gather holds what was forwarded of the pieces that a layer is delivering. Their
// memory does not change until all are delivered, so that they can be sent in one write
// without a copy.
type gather struct {
	on  bool  // a layer is delivering
	end *byte // the last byte of the piece lent to the protocol
	to  *stream
	vec [][]byte
	n   int // bytes in vec
}

// gatherMax is how many bytes may wait for the last piece.
const gatherMax = 256 << 10

// takes reports whether p, forwarded to s, may wait for the last piece.
func (g *gather) takes(s *stream, p []byte) bool {
	switch {
	case len(p) == 0 || !g.on || lastByte(p) != g.end:
		return false
	case !s.loop.caps.Inline || s.out != nil:
		return false // it would be buffered
	}
	if k, ok := s.lower.(*socket); !ok || k.spliceOut {
		return false // a carrier gets it at once, or it would be buffered
	}
	if g.to == nil {
		return len(p) >= directMin
	}
	return g.to == s && len(g.vec) < vecMax && g.n+len(p) <= gatherMax
}

// lastByte is the last byte of the memory that p is part of; nil if p has none.
func lastByte(p []byte) *byte {
	if cap(p) == 0 {
		return nil
	}
	return &p[:cap(p)][cap(p)-1]
}

func (s *stream) Forward(p []byte) (int, error) {
	if err := s.writable("Forward"); err != nil {
		return 0, err
	}
	if g := &s.loop.gather; g.takes(s, p) {
		g.to = s
		g.vec = append(g.vec, p)
		g.n += len(p)
		s.x.idle.movedNow(DirectionWrite)
	} else {
		s.send(p)
	}
	return len(p), nil
}

// sendGathered sends as much as the system takes of what was forwarded to s and not yet
// sent, and buffers the rest. It makes no callbacks: the caller has to call overflow.
func (s *stream) sendGathered() {
	g := &s.loop.gather
	if g.to != s {
		return
	}
	sent := s.lower.(*socket).direct(g.vec) //nolint:forcetypeassert // takes has checked it
	for _, p := range g.vec {
		k := min(sent, len(p))
		sent -= k
		if k < len(p) {
			s.buffer(p[k:])
		}
	}
	g.drop()
	if s.out == nil {
		s.drainLater()
	}
}

// drop forgets what was forwarded.
func (g *gather) drop() {
	clear(g.vec)
	g.to, g.vec, g.n = nil, g.vec[:0], 0
}

// DeliverMany is Deliver for many pieces: the protocol gets one DataReceived for each.
// Whatever it forwards of them is sent together. Their memory must not change until
// DeliverMany returns.
func (f *Feed) DeliverMany(pieces [][]byte) {
	g := &f.k.loop.gather
	mine := !g.on && len(pieces) > 1
	g.on = g.on || mine
	for _, p := range pieces {
		p = p[:len(p):len(p)] // appending to one must not change the next
		if mine {
			g.end = lastByte(p)
		}
		f.Deliver(p)
	}
	if !mine {
		return
	}
	g.on, g.end = false, nil
	if s := g.to; s != nil {
		s.sendGathered()
		s.overflow()
	}
}
