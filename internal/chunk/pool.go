// Package chunk provides the buffers that a loop lends out and takes back.
package chunk

// Size is the size of a buffer, in bytes.
const Size = 16 << 10

// kept is how many free buffers a pool keeps at most; the rest is left to the collector.
const kept = 128

// Pool holds a loop's free buffers: an idle connection holds none. Only the loop's
// goroutine may use it. The zero value is ready.
type Pool struct{ free [][]byte }

// Get returns a buffer of Size bytes with unknown content.
func (p *Pool) Get() []byte {
	if n := len(p.free); n > 0 {
		c := p.free[n-1]
		p.free[n-1] = nil
		p.free = p.free[:n-1]
		return c
	}
	return make([]byte, Size)
}

// Put takes back a buffer, or a slice of one; anything else is left to the collector.
// Under the build tag weirpoison its content is overwritten.
func (p *Pool) Put(c []byte) {
	poison(c)
	if cap(c) != Size || len(p.free) >= kept {
		return
	}
	p.free = append(p.free, c[:Size])
}
