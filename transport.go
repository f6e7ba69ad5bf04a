package weir

import (
	"net"
)

// Transport moves the bytes of one stream. It is an io.Writer and an io.Closer,
// and a feed for one Protocol. All methods belong to the loop's goroutine; from
// elsewhere go through Loop().Post.
type Transport interface {
	// Write sends or copies p, which is then the caller's again. It never blocks. If
	// nothing is buffered, a p of 16 KiB or more is sent at once, as far as it goes. All
	// else is copied, joined with the other writes of the same callback, and sent when
	// that returns, or when the buffer exceeds the high mark. After Close, or when the connection is lost, it returns ErrClosed and
	// sends nothing; after WriteEOF, ErrWriteAfterEOF.
	Write(p []byte) (int, error)
	// Writev is Write for several pieces, which are not interleaved with
	// anything else. It returns how many bytes it took: all or none.
	Writev(bufs [][]byte) (int, error)
	// WriteEOF sends the end of the stream after everything written; reading goes on.
	// Calling it again has no effect. It returns ErrNoHalfClose if CanWriteEOF is false.
	WriteEOF() error
	// CanWriteEOF reports whether the end of writing can be sent alone.
	CanWriteEOF() bool
	// Close sends what was written, then closes. No DataReceived comes after
	// it; one ConnectionLost does. It returns nil, except for a misuse that WithDebug
	// finds.
	Close() error
	// Abort drops what was not sent and closes; if the network can express it (TCP),
	// the peer sees a reset, not an end. See Resetter for a reset that comes after what
	// was written.
	Abort()

	// PauseReading stops DataReceived; bytes already read are kept. ResumeReading lets
	// it go on, though never from inside the call. Calling it again has no effect.
	PauseReading()
	ResumeReading()

	// SetWriteMarks sets the marks of the write buffer, in bytes: PauseWriting is due
	// when more than high bytes are buffered, ResumeWriting when at most low are.
	// Unless 0 <= low <= high <= 1 GiB, it returns ErrBadMarks and changes nothing. The default is
	// 64 KiB and a quarter of it.
	SetWriteMarks(high, low int) error
	// WriteMarks returns the marks, in bytes.
	WriteMarks() (high, low int)
	// Room is how many bytes the buffer takes before PauseWriting is due; above layers, in
	// the form that the bytes have below them. It is 0 while the writer is paused, until
	// ResumeWriting is due, and where nothing can be written.
	Room() int
	// Buffered is how many bytes wait to be handed to the system. Above layers, it
	// includes the bytes that wait in and below the layers, in the form they have
	// there: encrypted, compressed. The marks apply to this number, and WriteDrained is
	// called when it is 0.
	Buffered() int

	// RegisterProducer ties p to the write buffer: see Producer. A second one
	// is an error. Close waits until it is unregistered.
	RegisterProducer(p Producer) error
	UnregisterProducer()

	// SetProtocol replaces the protocol: from now on p gets the bytes, any kept tail
	// first. Neither ConnectionLost of the old nor ConnectionMade of the new is called.
	// If the writer is paused, p gets PauseWriting after SetProtocol has returned, and
	// ResumeWriting later. A pause of reading ends with the protocol that asked for it,
	// unless SetProtocol is called within a DataReceived, which may hold bytes back for
	// p. Within an EOFReceived with unused bytes, p gets those and then, if it is an
	// EOFReceiver, the end of the stream; if it is not, the result of the old
	// protocol's EOFReceived stands.
	SetProtocol(p Protocol)
	// Protocol is the current protocol; nil once the connection is lost.
	Protocol() Protocol

	// LocalAddr and RemoteAddr are never nil and can still be read after the close.
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
	// Loop is the loop that runs the connection.
	Loop() *Loop
}

// Resetter is the ability of a transport to end with a failure that comes after
// everything written: find it with As. The transports of loops have it.
type Resetter interface {
	// Reset is Close, but the peer must not mistake the end for a clean one: it gets
	// what was written, through every layer, and then a reset if the network can
	// express it (TCP); no layer sends a closing message. ConnectionLost gets
	// ErrAborted. On TCP the socket stays until the peer has acknowledged everything,
	// or has taken nothing for 30 s.
	Reset()
}

// Producer makes bytes for a transport at the transport's pace. Its methods run
// on the loop's goroutine.
type Producer interface {
	// ResumeProducing asks for more. A pull producer writes one piece (and is asked
	// again when that has been sent); a push producer writes until paused.
	ResumeProducing()
	// PauseProducing asks a push producer to stop; a pull producer never gets it.
	PauseProducing()
	// StopProducing says that nothing can be written any more.
	StopProducing()
	// Streaming is true for a push producer. It is asked once.
	Streaming() bool
}

// As finds the first ability of type T in a stack of transports, from the top
// down, as errors.As does among errors: a transport, the Carrier under it, and
// then what its Unwrap method returns, if it has one.
func As[T any](t Transport) (T, bool) {
	for t != nil {
		if a, ok := t.(T); ok {
			return a, true
		}
		if s, ok := t.(*stream); ok {
			if a, ok := s.ability().(T); ok {
				return a, true
			}
		}
		u, ok := t.(interface{ Unwrap() Transport })
		if !ok {
			break
		}
		t = u.Unwrap()
	}
	var zero T
	return zero, false
}
