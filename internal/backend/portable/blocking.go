package portable

import (
	"io"
	"sync"

	"github.com/weir-io/weir/internal/backend"
)

// A blocking port serves a connection that can only be read and written by
// calls that block. A goroutine fills in, another empties out; together the two
// buffers are what a socket's are elsewhere: a Write is done when out has it, a
// close sends what out still has. Each goroutine ends when it has nothing to do.
type blocking struct {
	b    *Backend
	e    *entry
	conn io.ReadWriteCloser
	also func() // Adopt: closes the descriptor that its owner knows

	mu sync.Mutex

	in       []byte // read and not yet taken: buffer[from:to]
	from, to int
	readErr  error // ends reading, behind what in has
	reading  bool  // the goroutine runs

	out      []byte // taken and not yet being written
	spare    []byte // the other buffer of the two that take turns
	inFlight int    // bytes in the hands of the goroutine
	writeErr error  // ends writing
	writing  bool   // the goroutine runs
	shut     bool   // end writing when out is empty
	wasShut  bool   // done
	closed   bool   // close when out is empty
}

const (
	inSize  = 32 << 10
	outSize = 64 << 10
)

func newBlocking(b *Backend, e *entry, conn io.ReadWriteCloser) *blocking {
	return &blocking{b: b, e: e, conn: conn}
}

// arm has nothing to do but start a reader: the writer tells of room, and both
// of failures, without being asked.
func (p *blocking) arm(ev backend.Events) {
	if ev&backend.Readable == 0 {
		return
	}
	p.mu.Lock()
	p.startReader()
	p.mu.Unlock()
}

func (p *blocking) startReader() {
	if !p.reading && p.from == p.to && p.readErr == nil && !p.closed {
		p.reading = true
		if p.in == nil {
			p.in = make([]byte, inSize)
		}
		go p.fill()
	}
}

// fill reads once.
func (p *blocking) fill() {
	var n int
	var err error
	// A Read may return nothing; one that does so for ever is broken.
	for tries := 0; n == 0 && err == nil; tries++ {
		if tries == 100 {
			err = io.ErrNoProgress
			break
		}
		n, err = p.conn.Read(p.in)
	}
	p.mu.Lock()
	p.reading = false
	p.from, p.to, p.readErr = 0, n, err
	p.mu.Unlock()
	p.b.notify(p.e)
}

func (p *blocking) read(buf []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.reading:
		return 0, backend.ErrAgain
	case p.from < p.to:
		n := copy(buf, p.in[p.from:p.to])
		p.from += n
		return n, nil
	case p.readErr != nil:
		return 0, p.readErr
	default:
		// A read that must not wait still has to be begun by somebody.
		p.startReader()
		return 0, backend.ErrAgain
	}
}

func (p *blocking) write(vec [][]byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.writeErr != nil {
		return 0, p.writeErr
	}
	if p.shut {
		return 0, errPipe
	}
	n := 0
	empty := true
	for _, piece := range vec {
		empty = empty && len(piece) == 0
		room := outSize - len(p.out) - p.inFlight
		take := min(room, len(piece))
		p.out = append(p.out, piece[:take]...)
		n += take
		if take < len(piece) {
			break
		}
	}
	if n == 0 && !empty {
		return 0, backend.ErrAgain
	}
	p.startWriter()
	return n, nil
}

func (p *blocking) startWriter() {
	if !p.writing {
		p.writing = true
		go p.empty()
	}
}

// empty writes until nothing is left, then ends what is to be ended.
func (p *blocking) empty() {
	p.mu.Lock()
	for len(p.out) > 0 && p.writeErr == nil {
		chunk := p.out
		p.out, p.spare = p.spare[:0], nil
		p.inFlight = len(chunk)
		p.mu.Unlock()
		_, err := p.conn.Write(chunk)
		p.mu.Lock()
		p.spare = chunk
		p.inFlight = 0
		if err != nil {
			p.writeErr = err
		}
		p.b.notify(p.e)
	}
	p.writing = false
	end := p.shut && !p.wasShut && p.writeErr == nil
	p.wasShut = p.wasShut || end
	closed := p.closed
	p.mu.Unlock()

	if end && !closed {
		if err := p.conn.(closeWriter).CloseWrite(); err != nil {
			p.mu.Lock()
			p.writeErr = err
			p.mu.Unlock()
		}
		p.b.notify(p.e)
	}
	if closed {
		p.end()
		p.b.lingering.Done()
	}
}

func (p *blocking) check(ev backend.Events) backend.Events {
	p.mu.Lock()
	defer p.mu.Unlock()
	var holds backend.Events
	if p.from < p.to || !p.reading && p.readErr != nil {
		holds |= backend.Readable
	}
	if p.writeErr != nil || len(p.out)+p.inFlight < outSize {
		holds |= backend.Writable
	}
	readFailed := !p.reading && p.from == p.to && p.readErr != nil
	if p.writeErr != nil || readFailed && (p.readErr != io.EOF || p.wasShut) { //nolint:errorlint // Read returns io.EOF itself
		holds |= backend.Failed
	}
	return holds & ev
}

func (p *blocking) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.readErr != nil && p.readErr != io.EOF { //nolint:errorlint // Read returns io.EOF itself
		return p.readErr
	}
	return p.writeErr
}

type closeWriter interface{ CloseWrite() error }

func (p *blocking) closeWrite() error {
	if _, ok := p.conn.(closeWriter); !ok {
		return backend.ErrUnsupported
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.writeErr == nil && !p.shut {
		p.shut = true
		p.startWriter()
	}
	return p.writeErr
}

// close sends what is left and then closes; a reset drops it.
func (p *blocking) close(reset bool) {
	p.mu.Lock()
	flush := !reset && p.writeErr == nil && (p.writing || len(p.out) > 0)
	if flush {
		p.closed = true
		p.b.lingering.Add(1)
		p.startWriter()
	} else {
		p.out = nil
	}
	p.mu.Unlock()
	if flush {
		return
	}
	if l, ok := p.conn.(interface{ SetLinger(sec int) error }); ok && reset {
		_ = l.SetLinger(0)
	}
	p.end()
}

func (p *blocking) end() {
	_ = p.conn.Close()
	if p.also != nil {
		p.also()
	}
}

func (p *blocking) release() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reading || p.writing || p.from < p.to {
		return backend.ErrUnsupported
	}
	if p.also != nil {
		return p.conn.Close() // our duplicate
	}
	return nil
}

func (p *blocking) setOption(o backend.Option, value int) error { return setOption(p.conn, o, value) }

func (p *blocking) getOption(o backend.Option) (int, error) {
	p.mu.Lock()
	have, left := p.to-p.from, len(p.out)+p.inFlight
	if p.reading {
		have = 0
	}
	p.mu.Unlock()
	switch o {
	case backend.PendingError:
		return 0, nil // Read and Write have it
	case backend.UnreadBytes:
		n, err := getOption(p.conn, o)
		if have > 0 {
			return n + have, nil
		}
		return n, err
	case backend.UnsentBytes:
		n, err := getOption(p.conn, o)
		if left > 0 {
			return n + left, nil
		}
		return n, err
	default:
		return getOption(p.conn, o)
	}
}
