package weir

// chunkSize is the size of the loop's buffers, in bytes.
const chunkSize = 16 << 10

// The pool keeps at most so many free ones; the rest is the collector's.
const (
	chunksKept = 128
	outsKept   = 1024
)

// chunkPool holds a loop's free buffers. Idle connections hold none.
type chunkPool struct {
	free [][]byte
	outs *outbuf
	nout int
}

// get returns a chunk of chunkSize bytes with unknown content.
func (p *chunkPool) get() []byte {
	if n := len(p.free); n > 0 {
		c := p.free[n-1]
		p.free[n-1] = nil
		p.free = p.free[:n-1]
		return c
	}
	return make([]byte, chunkSize)
}

// put takes back a chunk, or a slice of one; anything else is left to the
// collector.
func (p *chunkPool) put(c []byte) {
	poison(c)
	if cap(c) != chunkSize || len(p.free) >= chunksKept {
		return
	}
	p.free = append(p.free, c[:chunkSize])
}

func (p *chunkPool) getOut(s *stream) *outbuf {
	o := p.outs
	if o == nil {
		o = &outbuf{}
	} else {
		p.outs, o.next = o.next, nil
		p.nout--
	}
	o.op.Owner = s
	return o
}

func (p *chunkPool) putOut(o *outbuf) {
	o.op.Owner = nil
	o.op.Vec = nil
	if p.nout >= outsKept {
		return
	}
	o.next, p.outs = p.outs, o
	p.nout++
}
