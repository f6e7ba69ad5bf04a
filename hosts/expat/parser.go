// Package expat feeds libexpat, a push parser, with the bytes of a connection: a weir
// protocol whose events are the elements and the text of an XML stream, as XMPP has them.
//
//	loop.Connect("tcp", address, expat.New(expat.Handler{Start: …, End: …, Text: …}))
//
// A parser that is pushed needs nothing kept for it: DataReceived hands over what came, in
// whatever pieces, and the parser remembers where it is.
package expat

// #cgo pkg-config: expat
// #include "parser.h"
import "C"

import (
	"errors"
	"fmt"
	"runtime/cgo"
	"unsafe"

	"github.com/weir-io/weir"
)

// Bounds of what a peer may send.
const (
	depthMost = 256     // elements that are open
	tokenMost = 1 << 20 // bytes of one tag, comment or the like
)

// Errors that lose the connection.
var (
	ErrDepth   = errors.New("expat: more than 256 elements are open")
	ErrToken   = errors.New("expat: a tag or comment is longer than 1 MiB")
	ErrDoctype = errors.New("expat: the peer sent a document type, which could define endless entities")
)

// A SyntaxError says where the peer's text is not XML.
type SyntaxError struct {
	Line, Column int
	Text         string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("expat: line %d, column %d: %s", e.Line, e.Column+1, e.Text)
}

// A Handler gets the events of the stream, on the loop's goroutine. Each function may be
// nil. An error loses the connection with that error; no event follows it.
type Handler struct {
	Made  func(t weir.Transport)
	Start func(name string, attributes map[string]string) error
	End   func(name string) error
	Text  func(text string) error // any piece of text, not necessarily all of it
	// Lost is ConnectionLost; nil only if the peer's document was whole.
	Lost func(err error)
}

// A Parser is the protocol of one connection.
type Parser struct {
	h      Handler
	p      C.XML_Parser
	handle cgo.Handle
	depth  int
	fed    int64 // all that was parsed
	err    error
}

var (
	_ weir.Protocol    = (*Parser)(nil)
	_ weir.EOFReceiver = (*Parser)(nil)
)

// New makes a protocol. It holds memory of libexpat from ConnectionMade to ConnectionLost.
func New(h Handler) *Parser { return &Parser{h: h} }

// ConnectionMade begins to parse.
func (x *Parser) ConnectionMade(t weir.Transport) {
	x.handle = cgo.NewHandle(x)
	x.p = C.weir_parser_new(C.uintptr_t(x.handle))
	if x.p == nil {
		x.err = errors.New("expat: there is no memory for a parser")
	}
	if x.h.Made != nil {
		x.h.Made(t)
	}
}

// DataReceived parses what came.
func (x *Parser) DataReceived(p []byte) (int, error) {
	for n := 0; n < len(p); {
		piece := p[n:min(n+1<<16, len(p))]
		if err := x.parse(piece, 0); err != nil {
			return n, err
		}
		n += len(piece)
		// libexpat keeps a token until it is whole.
		if x.fed-int64(C.XML_GetCurrentByteIndex(x.p)) > tokenMost {
			return n, ErrToken
		}
	}
	return len(p), nil
}

// EOFReceived ends the document, which must be whole.
func (x *Parser) EOFReceived(int) (keepOpen bool, err error) {
	if err := x.parse(nil, 1); err != nil {
		return false, err
	}
	return false, nil
}

// ConnectionLost frees the parser.
func (x *Parser) ConnectionLost(err error) {
	if x.p != nil {
		C.XML_ParserFree(x.p)
		x.p = nil
	}
	x.handle.Delete()
	if x.h.Lost != nil {
		x.h.Lost(err)
	}
}

func (x *Parser) parse(p []byte, last C.int) error {
	if x.err != nil {
		return x.err
	}
	x.fed += int64(len(p))
	r := C.XML_Parse(x.p, (*C.char)(unsafe.Pointer(unsafe.SliceData(p))), C.int(len(p)), last)
	if x.err == nil && r != C.XML_STATUS_OK {
		x.err = &SyntaxError{
			Line:   int(C.XML_GetCurrentLineNumber(x.p)),
			Column: int(C.XML_GetCurrentColumnNumber(x.p)),
			Text:   C.GoString(C.XML_ErrorString(C.XML_GetErrorCode(x.p))),
		}
	}
	return x.err
}

// stop ends the parsing inside one of its callbacks.
func (x *Parser) stop(err error) {
	if err != nil && x.err == nil {
		x.err = err
		C.XML_StopParser(x.p, C.XML_FALSE)
	}
}

func parserOf(handle C.uintptr_t) *Parser { return cgo.Handle(handle).Value().(*Parser) }

// guard turns a panic of a Handler into an error: it must not pass through C.
func (x *Parser) guard() {
	if r := recover(); r != nil {
		x.stop(fmt.Errorf("expat: a handler panicked: %v", r))
	}
}

//export weirXMLStart
func weirXMLStart(handle C.uintptr_t, name *C.char, attributes **C.char) {
	x := parserOf(handle)
	defer x.guard()
	if x.err != nil {
		return // libexpat may still report the end of an empty element
	}
	if x.depth++; x.depth > depthMost {
		x.stop(ErrDepth)
		return
	}
	if x.h.Start == nil {
		return
	}
	var all map[string]string
	for a := attributes; *a != nil; a = (**C.char)(unsafe.Add(unsafe.Pointer(a), 2*unsafe.Sizeof(a))) {
		if all == nil {
			all = map[string]string{}
		}
		all[C.GoString(*a)] = C.GoString(*(**C.char)(unsafe.Add(unsafe.Pointer(a), unsafe.Sizeof(a))))
	}
	x.stop(x.h.Start(C.GoString(name), all))
}

//export weirXMLEnd
func weirXMLEnd(handle C.uintptr_t, name *C.char) {
	x := parserOf(handle)
	defer x.guard()
	if x.err != nil {
		return
	}
	x.depth--
	if x.h.End != nil {
		x.stop(x.h.End(C.GoString(name)))
	}
}

//export weirXMLText
func weirXMLText(handle C.uintptr_t, s *C.char, n C.int) {
	x := parserOf(handle)
	defer x.guard()
	if x.err == nil && x.h.Text != nil {
		x.stop(x.h.Text(C.GoStringN(s, n)))
	}
}

//export weirXMLDoctype
func weirXMLDoctype(handle C.uintptr_t) { parserOf(handle).stop(ErrDoctype) }
