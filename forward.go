package weir

// Forwarder is the ability of a transport to send bytes that another one's protocol
// was lent, without a copy. Find it with As on the very transport.
type Forwarder interface {
	// Forward is Write for p, all or part of what a DataReceived is lent, if nobody
	// changes those bytes any more: neither the caller nor whoever is lent them
	// next. Where a layer delivers many pieces at once (Feed.DeliverMany) they leave
	// together, when the last is delivered.
	Forward(p []byte) (int, error)
}

// gather is what was forwarded out of the pieces that a layer is delivering. Their
// memory stays as it is until all are delivered, so that they leave in one write
// without a copy.
type gather struct {
	end *byte // the last byte of the memory that the pieces lie in; nil: no layer delivers
	to  *stream
	vec [][]byte
	n   int // bytes in vec
}

// holds reports whether p lies in the memory of the pieces.
func (g *gather) holds(p []byte) bool { return g.end != nil && lastByte(p) == g.end }

// lastByte is the end of the memory that p is a part of; nil if p has none.
func lastByte(p []byte) *byte {
	if cap(p) == 0 {
		return nil
	}
	return &p[:cap(p)][cap(p)-1]
}

// Forward implements Forwarder.
func (s *stream) Forward(p []byte) (int, error) {
	if err := s.writable(); err != nil {
		return 0, err
	}
	g := &s.loop.gather
	switch {
	case !g.holds(p) || !s.loop.caps.Inline || s.out != nil || s.flags&(fCarried|fSpliceOut) != 0:
		s.write(p)
	case g.to == nil && len(p) >= directMin, g.to == s && len(g.vec) < vecMax && len(p) > 0:
		g.to = s
		g.vec = append(g.vec, p)
		g.n += len(p)
	default:
		s.write(p)
	}
	return len(p), nil
}

// settle sends what was forwarded to s and has not left, as far as the system takes
// it, and buffers the rest.
func (s *stream) settle() {
	g := &s.loop.gather
	if g.to != s {
		return
	}
	sent := s.direct(g.vec)
	for _, p := range g.vec {
		k := min(sent, len(p))
		sent -= k
		if k < len(p) {
			s.buffer(p[k:])
		}
	}
	g.drop()
	if s.out != nil {
		s.overflow()
	} else {
		s.drainLater()
	}
}

// drop forgets what was forwarded.
func (g *gather) drop() {
	clear(g.vec)
	g.to, g.vec, g.n = nil, g.vec[:0], 0
}

// DeliverMany is Deliver for pieces that lie behind one another in one slice of the
// layer's, each up to that slice's capacity: the protocol gets one DataReceived for
// each. What it forwards of them leaves together. They are lent until DeliverMany
// returns.
func (f *Feed) DeliverMany(pieces [][]byte) {
	g := &f.s.loop.gather
	mine := g.end == nil && len(pieces) > 1
	if mine {
		g.end = lastByte(pieces[0])
	}
	for _, p := range pieces {
		f.Deliver(p)
	}
	if mine {
		g.end = nil
		if g.to != nil {
			g.to.settle()
		}
	}
}
