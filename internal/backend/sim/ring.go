package sim

import "math/bits"

// pool keeps memory for rings, by powers of two, so that idle connections hold
// none and busy ones allocate none.
type pool struct {
	free [40][][]byte
}

const ringMin = 12 // the smallest ring has 1<<ringMin bytes

func (p *pool) get(n int) []byte {
	class := max(ringMin, bits.Len(uint(n-1)))
	if k := len(p.free[class]); k > 0 {
		b := p.free[class][k-1]
		p.free[class] = p.free[class][:k-1]
		return b
	}
	return make([]byte, 1<<class)
}

func (p *pool) put(b []byte) {
	if len(b) > 0 {
		class := bits.Len(uint(len(b) - 1))
		p.free[class] = append(p.free[class], b)
	}
}

// ring holds the bytes of a direction between two counts, which only grow.
type ring struct {
	buf []byte // its length is 0 or a power of two
}

// grow makes room for the bytes from lo to hi, of which those up to end are
// there.
func (r *ring) grow(p *pool, lo, end, hi uint64) {
	if int(hi-lo) <= len(r.buf) {
		return
	}
	next := p.get(int(hi - lo))
	for at := lo; at < end; {
		piece := r.piece(at, end)
		at += uint64(place(next, at, piece))
	}
	p.put(r.buf)
	r.buf = next
}

// piece returns the bytes from lo on that lie in one row, up to hi.
func (r *ring) piece(lo, hi uint64) []byte {
	i := int(lo) & (len(r.buf) - 1)
	return r.buf[i:min(len(r.buf), i+int(hi-lo))]
}

// place copies p to where the count at lies in buf, as far as one row reaches,
// and returns how many bytes that was.
func place(buf []byte, at uint64, p []byte) int {
	return copy(buf[int(at)&(len(buf)-1):], p)
}

// write puts p at the count at. There must be room.
func (r *ring) write(at uint64, p []byte) {
	for len(p) > 0 {
		n := place(r.buf, at, p)
		at += uint64(n)
		p = p[n:]
	}
}

// read fills p from the count at on.
func (r *ring) read(at uint64, p []byte) {
	for len(p) > 0 {
		n := copy(p, r.piece(at, at+uint64(len(p))))
		at += uint64(n)
		p = p[n:]
	}
}

func (r *ring) release(p *pool) {
	p.put(r.buf)
	r.buf = nil
}
