package netconn

import "sync"

// The sizes of buffers, in bytes. A connection begins with a small buffer and changes
// to a large one when that is full; an idle connection has none.
const (
	smallSize = 4 << 10
	largeSize = 64 << 10
)

// pools holds the free buffers of connections that were made together.
type pools struct{ small, large sync.Pool }

func (p *pools) get(large bool) []byte {
	if large {
		if b, ok := p.large.Get().(*[largeSize]byte); ok {
			return b[:]
		}
		return make([]byte, largeSize)
	}
	if b, ok := p.small.Get().(*[smallSize]byte); ok {
		return b[:]
	}
	return make([]byte, smallSize)
}

// put takes back what get returned, at full length.
func (p *pools) put(b []byte) {
	switch len(b) {
	case smallSize:
		p.small.Put((*[smallSize]byte)(b))
	case largeSize:
		p.large.Put((*[largeSize]byte)(b))
	}
}

// fifo is a bounded queue of bytes, a ring in a buffer from the pools.
type fifo struct {
	pools *pools
	buf   []byte // nil while empty
	r, n  int    // where it begins, and its length
}

// put appends as much of p as there is room for and returns how much that was.
func (q *fifo) put(p []byte) int {
	if len(p) == 0 {
		return 0
	}
	if need := q.n + len(p); q.buf == nil {
		q.buf = q.pools.get(need > smallSize)
	} else if need > len(q.buf) && len(q.buf) < largeSize {
		bigger := q.pools.get(true)
		n := q.peek(bigger)
		q.pools.put(q.buf)
		q.buf, q.r, q.n = bigger, 0, n
	}
	p = p[:min(len(p), len(q.buf)-q.n)]
	w := q.r + q.n
	if w >= len(q.buf) {
		w -= len(q.buf)
	}
	copy(q.buf, p[copy(q.buf[w:], p):])
	q.n += len(p)
	return len(p)
}

// peek copies the front of the queue to p and returns how much that was.
func (q *fifo) peek(p []byte) int {
	p = p[:min(len(p), q.n)]
	copy(p[copy(p, q.buf[q.r:]):], q.buf)
	return len(p)
}

// take moves the front of the queue to p and returns how much that was.
func (q *fifo) take(p []byte) int {
	n := q.peek(p)
	q.n -= n
	if q.r += n; q.r >= len(q.buf) {
		q.r -= len(q.buf)
	}
	if q.n == 0 {
		q.drop()
	}
	return n
}

// drop empties the queue.
func (q *fifo) drop() {
	if q.buf != nil {
		q.pools.put(q.buf)
	}
	q.buf, q.r, q.n = nil, 0, 0
}
