package weir

import (
	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/chunk"
)

// outbuf is a stream's write buffer: chunks from the loop's pool, sent in order. It
// exists only while something is buffered.
type outbuf struct {
	op     backend.Op
	chunks [][]byte // what is not yet sent, in order
	vec    [][]byte // the pieces that op was given: the same memory
	n      int      // bytes in chunks
	asked  int      // bytes in vec
	lent   bool     // a Carrier's Write has chunks
	next   *outbuf  // the pool's list
}

// busy reports whether the lower half is using it.
func (o *outbuf) busy() bool { return o.lent || o.op.Armed() }

// vecMax is how many pieces one write takes.
const vecMax = 64

func (o *outbuf) append(pool *outPool, p []byte) {
	o.n += len(p)
	for len(p) > 0 {
		last := len(o.chunks) - 1
		if last < 0 || len(o.chunks[last]) == cap(o.chunks[last]) {
			o.chunks = append(o.chunks, pool.Get()[:0])
			last++
		}
		c := o.chunks[last]
		k := copy(c[len(c):cap(c)], p)
		o.chunks[last] = c[:len(c)+k]
		p = p[k:]
	}
}

// limit shortens vec to n bytes.
func (o *outbuf) limit(n int) {
	for i, p := range o.vec {
		if n <= len(p) {
			o.vec[i] = p[:n]
			o.vec = o.vec[:i+1]
			o.asked = 0 // not all there is
			return
		}
		n -= len(p)
	}
}

// sent takes n bytes off the front.
func (o *outbuf) sent(pool *outPool, n int) {
	o.n -= n
	done := 0
	for n > 0 {
		c := o.chunks[done]
		if n < len(c) {
			o.chunks[done] = c[n:]
			break
		}
		n -= len(c)
		pool.Put(c)
		o.chunks[done] = nil
		done++
	}
	o.chunks = o.chunks[:copy(o.chunks, o.chunks[done:])]
}

func (o *outbuf) release(pool *outPool) {
	for i, c := range o.chunks {
		pool.Put(c)
		o.chunks[i] = nil
	}
	clear(o.vec[:cap(o.vec)])
	o.chunks, o.vec, o.n = o.chunks[:0], o.vec[:0], 0
	pool.putOut(o)
}

// outsKept is how many free write buffers a loop keeps at most.
const outsKept = 1024

// outPool holds a loop's free buffers: chunks for bytes, and the heads of write
// buffers.
type outPool struct {
	chunk.Pool
	outs *outbuf
	nout int
}

func (p *outPool) getOut() *outbuf {
	o := p.outs
	if o == nil {
		return &outbuf{}
	}
	p.outs, o.next = o.next, nil
	p.nout--
	return o
}

func (p *outPool) putOut(o *outbuf) {
	o.op.Owner = nil
	o.op.Vec = nil
	if p.nout >= outsKept {
		return
	}
	o.next, p.outs = p.outs, o
	p.nout++
}
