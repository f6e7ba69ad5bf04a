package portable

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
)

// A blocking port serves a connection that can only be read and written by calls that
// block. One goroutine fills in, another empties out. Together the two buffers take the
// place of a socket's buffers: a Write is done when out has its bytes, and a close
// sends what out still holds. Each goroutine ends when it has nothing to do.
type blocking struct {
	b    *Backend
	e    *entry
	conn io.ReadWriteCloser
	also func() // from Adopt: closes the descriptor that its owner knows
	// noRead and noWrite are true for the ends of a pipe.
	noRead, noWrite bool
	ward            *ward // for noRead, while a Hangup is armed; nil if none

	fillNow, emptyNow func() // fill and empty, so that starting one allocates nothing

	mu sync.Mutex

	in       []byte // read and not yet taken: in[from:to]
	from, to int
	readErr  error // ends reading, after what in holds
	reading  bool  // the goroutine runs, and fills in[to:]
	ahead    bool  // a Hangup is armed: read while in has room

	out      []byte // what is being written while writing
	writeErr error  // ends writing
	unsent   error  // why the last bytes could not be written
	writing  bool   // the goroutine runs
	shut     bool   // end writing when out is written
	wasShut  bool   // done
	closed   bool   // close when out is written
}

const (
	inSize  = 32 << 10
	outSize = 64 << 10
)

func newBlocking(b *Backend, e *entry, conn io.ReadWriteCloser) *blocking {
	p := &blocking{b: b, e: e, conn: conn}
	p.fillNow, p.emptyNow = p.fill, p.empty
	return p
}

// arm makes sure that a goroutine reads: into an empty buffer for Readable, and as long
// as there is room for Failed, since a Read is the way to detect a failure. The writer
// reports room without being asked.
func (p *blocking) arm(ev backend.Events) {
	p.mu.Lock()
	if ev&backend.Failed != 0 {
		p.ahead = true
		p.guardReader()
	}
	if ev&(backend.Readable|backend.Failed) != 0 {
		p.startReader()
	}
	p.mu.Unlock()
}

// guardReader watches for the reader of a pipe that only we write to: an idle one
// has no call in progress that would fail.
func (p *blocking) guardReader() {
	f, ok := p.conn.(*os.File)
	if !ok || !p.noRead || p.ward != nil || p.writeErr != nil || p.closed {
		return
	}
	p.ward = newWard(f, p.readerGone)
}

// readerGone is called by the ward, from its goroutine.
func (p *blocking) readerGone() {
	p.mu.Lock()
	if p.writeErr == nil {
		p.writeErr = errPipe
	}
	p.b.notify(p.e)
	p.mu.Unlock()
}

func (p *blocking) startReader() {
	if p.reading || p.readErr != nil || p.closed || p.noRead {
		return
	}
	if p.from == p.to {
		p.from, p.to = 0, 0
	}
	if p.to > 0 && !p.ahead || p.to == inSize {
		return
	}
	if p.in == nil {
		p.in = make([]byte, inSize)
	}
	p.reading = true
	go p.fillNow()
}

// fill reads once, or while it is to read ahead.
func (p *blocking) fill() {
	p.mu.Lock()
	for again := true; again; {
		into := p.in[p.to:]
		p.mu.Unlock()
		n, err := p.readSome(into)
		p.mu.Lock()
		p.to += n
		if err == errHungUp { //nolint:errorlint // it is our own
			err = io.EOF
			if p.writeErr == nil {
				p.writeErr = syscall.EIO
			}
		}
		p.readErr = err
		again = p.ahead && err == nil && p.to < inSize && !p.closed
		p.reading = again
		p.b.notify(p.e)
	}
	p.mu.Unlock()
}

// errHungUp is the result of reading from a PTY whose other side is gone: an end of the
// stream, after which nothing can be written either.
var errHungUp = errors.New("terminal hung up")

// readSome reads until there is something. A Read may return nothing; one that
// does so for ever is broken.
func (p *blocking) readSome(into []byte) (n int, err error) {
	for tries := 0; n == 0 && err == nil; tries++ {
		if tries == 100 {
			return 0, io.ErrNoProgress
		}
		n, err = p.conn.Read(into)
	}
	if (errors.Is(err, syscall.EIO) || err == io.EOF && hungUp(p.conn)) && isDevice(p.conn) { //nolint:errorlint // Read returns io.EOF itself
		err = errHungUp
	}
	return n, err
}

// isDevice reports whether conn is a character device, as a terminal is.
func isDevice(conn any) bool {
	f, ok := conn.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

func (p *blocking) read(buf []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.from < p.to:
		n := copy(buf, p.in[p.from:p.to])
		p.from += n
		return n, nil
	case p.readErr != nil:
		return 0, p.readErr
	default:
		// Even for a read that must not wait, a goroutine has to begin the reading.
		p.startReader()
		return 0, backend.ErrAgain
	}
}

// write takes one buffer full, once the one before has been written, so that an error
// is never further behind than that. An empty write asks how that ended: if the reader
// has left with all of it since, that is not an error.
func (p *blocking) write(vec [][]byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case len(vec) == 0 && p.writing:
		return 0, backend.ErrAgain
	case len(vec) == 0:
		return 0, p.unsent
	case p.writeErr != nil:
		return 0, p.writeErr
	case p.shut:
		return 0, errPipe
	case p.writing:
		return 0, backend.ErrAgain
	}
	for _, piece := range vec {
		p.out = append(p.out, piece[:min(len(piece), outSize-len(p.out))]...)
	}
	n := len(p.out)
	if n > 0 {
		p.startWriter()
	}
	return n, nil
}

func (p *blocking) startWriter() {
	if !p.writing {
		p.writing = true
		go p.emptyNow()
	}
}

// empty writes what is pending, then ends writing or closes, if requested.
func (p *blocking) empty() {
	var err error
	if len(p.out) > 0 { // no one else changes it while writing
		_, err = p.conn.Write(p.out)
	}
	p.mu.Lock()
	for {
		p.out = p.out[:0]
		if err != nil && p.unsent == nil {
			p.unsent = err
		}
		if err != nil && p.writeErr == nil {
			p.writeErr = err
		}
		if !p.shut || p.wasShut || p.closed || p.writeErr != nil {
			break
		}
		p.mu.Unlock()
		err = p.conn.(closeWriter).CloseWrite()
		p.mu.Lock()
		p.wasShut = true
	}
	p.writing = false
	closed := p.closed
	p.b.notify(p.e)
	p.mu.Unlock()
	if closed {
		p.end()
		p.b.waiting.Done()
	}
}

func (p *blocking) check(ev backend.Events) backend.Events {
	p.mu.Lock()
	defer p.mu.Unlock()
	var holds backend.Events
	if p.from < p.to || p.readErr != nil {
		holds |= backend.Readable
	}
	if p.writeErr != nil || !p.writing {
		holds |= backend.Writable
	}
	if p.writeErr != nil || p.readErr != nil && (p.readErr != io.EOF || p.wasShut || p.noWrite) { //nolint:errorlint // Read returns io.EOF itself
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
	p.ward.stop()
	flush := !reset && p.writing
	if flush {
		p.closed = true
		p.b.waiting.Add(1)
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
	p.ward.stop()
	if p.also != nil {
		return p.conn.Close() // our duplicate
	}
	return nil
}

func (p *blocking) setOption(o backend.Option, value int) error { return setOption(p.conn, o, value) }

func (p *blocking) getOption(o backend.Option) (int, error) {
	p.mu.Lock()
	have, left := p.to-p.from, len(p.out)
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
