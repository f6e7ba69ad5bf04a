package weir

import "net"

// Protocol gives meaning to the bytes of one stream. Its methods are called on
// the loop's goroutine, one at a time: ConnectionMade once, DataReceived any
// number of times, ConnectionLost once and last.
//
// A panic in any of them, or an error from DataReceived, loses this connection
// and no other.
type Protocol interface {
	// ConnectionMade hands over the transport. What is written here reaches the
	// peer even if Close follows at once.
	ConnectionMade(t Transport)
	// DataReceived hands over bytes, in order, and returns how many it used. It
	// has the shape of io.Writer, except that using less than all is no error:
	// the transport keeps the rest and offers it again in front of what comes
	// next, at once if n > 0, with the next bytes if n = 0. p is lent until the
	// call returns and must not be changed. A non-nil error loses the
	// connection with that error.
	DataReceived(p []byte) (n int, err error)
	// ConnectionLost ends the connection: nil for a clean end (either side
	// closed and everything was delivered), ErrAborted for an abort here, a
	// typed error for all else. It is never called from inside the method that
	// caused it.
	ConnectionLost(err error)
}

// Factory makes the protocol for a new connection, whose transport exists
// already and must not yet be written to. Returning nil refuses the connection.
// It runs on the loop's goroutine.
type Factory func(t Transport) Protocol

// EOFReceiver is a Protocol that wants to know of the peer's end of stream.
type EOFReceiver interface {
	// EOFReceived says that the peer will send no more, and how many bytes
	// at the end DataReceived never used. Returning true keeps the connection
	// open for writing until the protocol closes it or ends its own direction with
	// WriteEOF. Without this method, or with false, the transport flushes and closes; if bytes were left unused
	// then ConnectionLost gets an *UnusedError. A non-nil error loses the
	// connection at once with that error.
	EOFReceived(unused int) (keepOpen bool, err error)
}

// WritePauser is a Protocol that wants to know when it writes too much. For a
// protocol without it the transport stops reading, once what its DataReceived
// wrote here went over the mark, until ResumeWriting would be due: a peer that
// sends and never reads fills no memory with replies. A protocol that replies
// later than that, or writes of its own accord, has to know its marks.
type WritePauser interface {
	// PauseWriting is called once, inside the Write that crossed the high mark.
	// Writing more is allowed, and buffered.
	PauseWriting()
	// ResumeWriting is called once the buffer is at or under the low mark. The
	// two alternate.
	ResumeWriting()
}

// Drainer is a Protocol that wants to know when everything it wrote has been
// handed to the system.
type Drainer interface {
	// WriteDrained is called each time the write buffer becomes empty, after
	// ResumeWriting where both are due.
	WriteDrained()
}

// BufferedProtocol is a Protocol that supplies the memory to read into, for
// relays that want no copy.
type BufferedProtocol interface {
	Protocol
	// ReadBuffer returns where the next bytes shall go; the transport owns it
	// until the DataReceived that hands over its filled part. An empty one, or
	// a panic, loses the connection.
	ReadBuffer() []byte
}

// ConnectFailer is a Protocol that wants to know why a Connect came to
// nothing. It gets either ConnectionMade or, in the end, ConnectFailed; both
// only where it asks for another attempt in between.
type ConnectFailer interface {
	// ConnectFailed reports the whole failure: every address that was tried, the
	// stage and the error of each. Another Connect may be made here.
	ConnectFailed(err *ConnectError)
}

// AttemptFailer is a Protocol that wants to hear of an address as soon as it has
// failed, while its connect goes on with others.
type AttemptFailer interface {
	// AttemptFailed reports the address, the stage and the error, and what is left:
	// next are the addresses that are being tried, and then those that will be, in
	// order. The last failure has none left and is ConnectFailed's, which lists this
	// one too. The connect may be stopped here.
	AttemptFailed(err *AttemptError, next []net.Addr)
}

// Transport moves the bytes of one stream. It is an io.Writer and an io.Closer,
// and a feed for one Protocol. All methods belong to the loop's goroutine; from
// elsewhere go through Loop().Post.
type Transport interface {
	// Write sends p, or copies what cannot be sent at once: the caller may use
	// p again. It never blocks. Writes of one callback are joined and leave
	// when it returns. After Close, or when the connection is lost, it returns
	// ErrClosed and sends nothing; after WriteEOF, ErrWriteAfterEOF.
	Write(p []byte) (int, error)
	// Writev is Write for several pieces, which are not interleaved with
	// anything else. It returns how many bytes it took: all or none.
	Writev(bufs [][]byte) (int, error)
	// WriteEOF sends the end of the stream after everything written; reading
	// goes on. Again is nothing. ErrNoHalfClose where CanWriteEOF is false.
	WriteEOF() error
	// CanWriteEOF reports whether the end of writing can be sent alone.
	CanWriteEOF() bool
	// Close sends what was written, then closes. No DataReceived comes after
	// it; one ConnectionLost does. It always returns nil.
	Close() error
	// Abort drops what was not sent and closes; where the network can say so
	// (TCP) the peer sees a reset, not an end.
	Abort()

	// PauseReading stops DataReceived; bytes already read are kept.
	// ResumeReading lets it go on, never from inside. Again is nothing.
	PauseReading()
	ResumeReading()

	// SetWriteMarks sets the marks of the write buffer, in bytes: PauseWriting
	// is due when more than high bytes are buffered, ResumeWriting when at most
	// low are. 0 <= low <= high, or an error and no change. The default is
	// 64 KiB and a quarter of it.
	SetWriteMarks(high, low int) error
	// Buffered is how many bytes wait to be handed to the system.
	Buffered() int

	// RegisterProducer ties p to the write buffer: see Producer. A second one
	// is an error. Close waits until it is unregistered.
	RegisterProducer(p Producer) error
	UnregisterProducer()

	// SetProtocol exchanges the protocol: the next byte, any kept tail included,
	// goes to p. Neither ConnectionLost of the old nor ConnectionMade of the new
	// is called. While the writer is paused p gets PauseWriting, after this has
	// returned, and then its own ResumeWriting.
	SetProtocol(p Protocol)
	// Protocol is the current one; nil when the connection is lost.
	Protocol() Protocol

	// LocalAddr and RemoteAddr are never nil and stay readable after the close.
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
	// Loop is the loop that runs the connection.
	Loop() *Loop
}

// Producer makes bytes for a transport at the transport's pace. Its methods run
// on the loop's goroutine.
type Producer interface {
	// ResumeProducing asks for more. A pull producer writes one piece (and is
	// asked again when that has left); a push producer writes until paused.
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

// DataFunc is the Protocol that does nothing but receive: DataFunc(t.Write) is
// an echo, and any io.Writer's Write method is a feed.
type DataFunc func(p []byte) (n int, err error)

// ConnectionMade does nothing.
func (DataFunc) ConnectionMade(Transport) {}

// DataReceived calls f.
func (f DataFunc) DataReceived(p []byte) (int, error) { return f(p) }

// ConnectionLost does nothing.
func (DataFunc) ConnectionLost(error) {}
