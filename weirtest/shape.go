package weirtest

import "github.com/weir-io/weir"

// callbacks is everything that a transport can tell a protocol.
type callbacks interface {
	ConnectionMade(t weir.Transport)
	DataReceived(p []byte) (int, error)
	ConnectionLost(err error)
	ConnectFailed(err *weir.ConnectError)
	EOFReceived(unused int) (bool, error)
	PauseWriting()
	ResumeWriting()
	WriteDrained()
	ReadBuffer() []byte
	WriteFailed(err error)
}

// shape says which of the optional callbacks a protocol has.
type shape uint8

const (
	shapeEOF shape = 1 << iota
	shapePause
	shapeDrain
	shapeBuffer
	shapeFail
)

type (
	basePart   struct{ c callbacks }
	eofPart    struct{ c callbacks }
	pausePart  struct{ c callbacks }
	drainPart  struct{ c callbacks }
	bufferPart struct{ c callbacks }

	// failBase is a basePart that is told of failed writes.
	failBase struct{ basePart }
)

func (b basePart) ConnectionMade(t weir.Transport)      { b.c.ConnectionMade(t) }
func (b basePart) DataReceived(p []byte) (int, error)   { return b.c.DataReceived(p) }
func (b basePart) ConnectionLost(err error)             { b.c.ConnectionLost(err) }
func (b basePart) ConnectFailed(err *weir.ConnectError) { b.c.ConnectFailed(err) }
func (b eofPart) EOFReceived(n int) (bool, error)       { return b.c.EOFReceived(n) }
func (b pausePart) PauseWriting()                       { b.c.PauseWriting() }
func (b pausePart) ResumeWriting()                      { b.c.ResumeWriting() }
func (b drainPart) WriteDrained()                       { b.c.WriteDrained() }
func (b bufferPart) ReadBuffer() []byte                 { return b.c.ReadBuffer() }
func (b failBase) WriteFailed(err error)                { b.c.WriteFailed(err) }

// shaped returns a protocol that passes everything to c and has no optional
// callbacks except those of s: a transport looks them up, so a type that has
// all of them would behave differently from the wrapped protocol.
func shaped(c callbacks, s shape) weir.Protocol {
	if s&shapeFail != 0 {
		return shapedFailing(c, s&^shapeFail)
	}
	var (
		b  = basePart{c}
		e  = eofPart{c}
		w  = pausePart{c}
		d  = drainPart{c}
		rb = bufferPart{c}
	)
	switch s { //nolint:exhaustive // combinations, of which shapeFail chooses the base
	case shapeEOF:
		return &struct {
			basePart
			eofPart
		}{b, e}
	case shapePause:
		return &struct {
			basePart
			pausePart
		}{b, w}
	case shapeEOF | shapePause:
		return &struct {
			basePart
			eofPart
			pausePart
		}{b, e, w}
	case shapeDrain:
		return &struct {
			basePart
			drainPart
		}{b, d}
	case shapeEOF | shapeDrain:
		return &struct {
			basePart
			eofPart
			drainPart
		}{b, e, d}
	case shapePause | shapeDrain:
		return &struct {
			basePart
			pausePart
			drainPart
		}{b, w, d}
	case shapeEOF | shapePause | shapeDrain:
		return &struct {
			basePart
			eofPart
			pausePart
			drainPart
		}{b, e, w, d}
	case shapeBuffer:
		return &struct {
			basePart
			bufferPart
		}{b, rb}
	case shapeEOF | shapeBuffer:
		return &struct {
			basePart
			eofPart
			bufferPart
		}{b, e, rb}
	case shapePause | shapeBuffer:
		return &struct {
			basePart
			pausePart
			bufferPart
		}{b, w, rb}
	case shapeEOF | shapePause | shapeBuffer:
		return &struct {
			basePart
			eofPart
			pausePart
			bufferPart
		}{b, e, w, rb}
	case shapeDrain | shapeBuffer:
		return &struct {
			basePart
			drainPart
			bufferPart
		}{b, d, rb}
	case shapeEOF | shapeDrain | shapeBuffer:
		return &struct {
			basePart
			eofPart
			drainPart
			bufferPart
		}{b, e, d, rb}
	case shapePause | shapeDrain | shapeBuffer:
		return &struct {
			basePart
			pausePart
			drainPart
			bufferPart
		}{b, w, d, rb}
	case shapeEOF | shapePause | shapeDrain | shapeBuffer:
		return &struct {
			basePart
			eofPart
			pausePart
			drainPart
			bufferPart
		}{b, e, w, d, rb}
	}
	return &struct{ basePart }{b}
}

// shapedFailing is shaped with shapeFail.
func shapedFailing(c callbacks, s shape) weir.Protocol {
	var (
		b  = failBase{basePart{c}}
		e  = eofPart{c}
		w  = pausePart{c}
		d  = drainPart{c}
		rb = bufferPart{c}
	)
	switch s { //nolint:exhaustive // combinations, of which shapeFail chooses the base
	case shapeEOF:
		return &struct {
			failBase
			eofPart
		}{b, e}
	case shapePause:
		return &struct {
			failBase
			pausePart
		}{b, w}
	case shapeEOF | shapePause:
		return &struct {
			failBase
			eofPart
			pausePart
		}{b, e, w}
	case shapeDrain:
		return &struct {
			failBase
			drainPart
		}{b, d}
	case shapeEOF | shapeDrain:
		return &struct {
			failBase
			eofPart
			drainPart
		}{b, e, d}
	case shapePause | shapeDrain:
		return &struct {
			failBase
			pausePart
			drainPart
		}{b, w, d}
	case shapeEOF | shapePause | shapeDrain:
		return &struct {
			failBase
			eofPart
			pausePart
			drainPart
		}{b, e, w, d}
	case shapeBuffer:
		return &struct {
			failBase
			bufferPart
		}{b, rb}
	case shapeEOF | shapeBuffer:
		return &struct {
			failBase
			eofPart
			bufferPart
		}{b, e, rb}
	case shapePause | shapeBuffer:
		return &struct {
			failBase
			pausePart
			bufferPart
		}{b, w, rb}
	case shapeEOF | shapePause | shapeBuffer:
		return &struct {
			failBase
			eofPart
			pausePart
			bufferPart
		}{b, e, w, rb}
	case shapeDrain | shapeBuffer:
		return &struct {
			failBase
			drainPart
			bufferPart
		}{b, d, rb}
	case shapeEOF | shapeDrain | shapeBuffer:
		return &struct {
			failBase
			eofPart
			drainPart
			bufferPart
		}{b, e, d, rb}
	case shapePause | shapeDrain | shapeBuffer:
		return &struct {
			failBase
			pausePart
			drainPart
			bufferPart
		}{b, w, d, rb}
	case shapeEOF | shapePause | shapeDrain | shapeBuffer:
		return &struct {
			failBase
			eofPart
			pausePart
			drainPart
			bufferPart
		}{b, e, w, d, rb}
	}
	return &struct{ failBase }{b}
}

// takingBase is a basePart of a protocol that takes descriptors. It has the callbacks
// whose absence means no more than a default.
type takingBase struct {
	basePart
	drainPart
	e *end
	s shape
}

func (b takingBase) DescriptorsReceived(fds []int, err error) { b.e.DescriptorsReceived(fds, err) }

func (b takingBase) EOFReceived(n int) (bool, error) {
	if b.s&shapeEOF == 0 {
		return false, nil
	}
	return b.e.EOFReceived(n)
}

// takingFailing is one that is told of failed writes.
type takingFailing struct{ takingBase }

func (b takingFailing) WriteFailed(err error) { b.e.WriteFailed(err) }

// shapedTaking is shaped for an end that takes descriptors.
func shapedTaking(e *end, s shape) weir.Protocol {
	b := takingBase{basePart{e}, drainPart{e}, e, s}
	f, w, rb := takingFailing{b}, pausePart{e}, bufferPart{e}
	switch s & (shapePause | shapeBuffer | shapeFail) { //nolint:exhaustive // combinations
	case shapePause:
		return &struct {
			takingBase
			pausePart
		}{b, w}
	case shapeBuffer:
		return &struct {
			takingBase
			bufferPart
		}{b, rb}
	case shapePause | shapeBuffer:
		return &struct {
			takingBase
			pausePart
			bufferPart
		}{b, w, rb}
	case shapeFail:
		return &f
	case shapePause | shapeFail:
		return &struct {
			takingFailing
			pausePart
		}{f, w}
	case shapeBuffer | shapeFail:
		return &struct {
			takingFailing
			bufferPart
		}{f, rb}
	case shapePause | shapeBuffer | shapeFail:
		return &struct {
			takingFailing
			pausePart
			bufferPart
		}{f, w, rb}
	}
	return &b
}
