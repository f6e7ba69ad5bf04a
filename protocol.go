package weir

import (
	"errors"
	"net"
)

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
	// ConnectionLost ends the connection: nil for a clean end (either side closed and
	// everything was delivered), ErrAborted for an abort here, a typed error for all
	// else. It is never called from inside the call that caused it.
	//
	// Inside it the transport can no longer be used: Write returns ErrClosed; Close,
	// Abort and SetProtocol have no effect; both addresses can still be read. The rest
	// of the loop may be used, for example to connect again, to set a timer or to close
	// other connections. A panic is reported and has no other effect.
	ConnectionLost(err error)
}

// Factory makes the protocol for a new connection, whose transport already exists. What
// the factory writes to t is sent before what ConnectionMade writes. Returning nil
// refuses the connection and drops what has not been sent yet. It runs on the loop's
// goroutine.
type Factory func(t Transport) Protocol

// EOFReceiver is a Protocol that wants to know about the peer's end of stream.
type EOFReceiver interface {
	// EOFReceived says that the peer will send no more, and how many bytes
	// at the end DataReceived never used. Returning true keeps the connection
	// open for writing until the protocol closes it or ends its own direction with
	// WriteEOF. Without this method, or with false, the transport flushes and closes;
	// if bytes were left unused, ConnectionLost then gets an *UnusedError. A non-nil
	// error loses the connection at once with that error.
	EOFReceived(unused int) (keepOpen bool, err error)
}

// WritePauser is a Protocol that wants to know when it writes too much. For any other
// protocol, once what its DataReceived wrote to this transport exceeds the high mark, the transport
// stops reading until ResumeWriting would be due: a peer that sends and never reads
// then fills no memory with replies. A protocol that replies later than that, or writes
// of its own accord, has to watch its marks itself.
type WritePauser interface {
	// PauseWriting is called once when the buffer exceeds the high mark: mostly inside
	// the Write that did it, else as SetWriteMarks, SetProtocol and Forwarder say.
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
	// ResumeWriting if both are due.
	WriteDrained()
}

// WriteFailer is a Protocol that wants to hear at once that its peer takes no more,
// even while reading is paused or bytes that the peer sent before are still on their
// way up: a relay, a layer.
type WriteFailer interface {
	// WriteFailed says that nothing written will arrive any more, and why: the peer
	// reset the connection, or a write failed. What was to be sent is dropped, and
	// Write returns ErrClosed from now on. Bytes that the peer sent before are still
	// delivered (once reading resumes, if it is paused), and ConnectionLost follows
	// them with the same error; so a protocol that pauses reading has to resume it, or
	// to close. WriteFailed is called at most once, and not at all if ConnectionLost
	// comes at once. Producers have been stopped by then. If err is ErrReaderGone only
	// writing has ended: the peer may go on for as long as it likes, and EOFReceived
	// comes before ConnectionLost.
	//
	// If a protocol without this method has paused reading, its connection is lost at
	// once if its writer is paused too or nothing is left to be read, and otherwise
	// when nothing has been read for 5 s.
	WriteFailed(err error)
}

// BufferedProtocol is a Protocol that supplies the memory to read into, for
// relays that want no copy.
type BufferedProtocol interface {
	Protocol
	// ReadBuffer returns the memory that the next bytes go to; the transport owns it
	// until the DataReceived that hands over its filled part. An empty slice (ErrNoBuffer), or a
	// panic, loses the connection.
	ReadBuffer() []byte
}

// ConnectFailer is a Protocol that wants to know why a Connect failed. It gets either
// ConnectionMade or, in the end, ConnectFailed; it gets both only if it asks for
// another attempt in between. If a protocol is not a ConnectFailer, the failure goes to
// the loop's error handler, or its log, unless Connector.Stop or the loop's Close
// caused it.
type ConnectFailer interface {
	// ConnectFailed reports the whole failure: every address that was tried, the
	// stage and the error of each. Another Connect may be made here.
	ConnectFailed(err *ConnectError)
}

// MaybeConnectFailer is a ConnectFailer that stands for another protocol, as a wrapper
// does. A type made to be embedded calls ConnectError.Pass instead: a type that embeds
// it would otherwise inherit TakesConnectFailed.
type MaybeConnectFailer interface {
	ConnectFailer
	// TakesConnectFailed reports whether ConnectFailed reaches someone. If not, the
	// failure goes to the loop's error handler too.
	TakesConnectFailed() bool
}

// TakesConnectFailed reports whether p wants to hear of a failed connect: whether it is
// a ConnectFailer, and not a MaybeConnectFailer that says no.
func TakesConnectFailed(p Protocol) bool {
	if m, ok := p.(MaybeConnectFailer); ok {
		return m.TakesConnectFailed()
	}
	_, ok := p.(ConnectFailer)
	return ok
}

// TellConnectFailed gives err to p if it is a ConnectFailer, and to the loop's error
// handler if p does not take it, so that no failure goes unnoticed. It is for code that
// makes connections by other means than Connect. Only the loop's goroutine may call it.
func (l *Loop) TellConnectFailed(p Protocol, err *ConnectError) {
	if f, ok := p.(ConnectFailer); ok {
		f.ConnectFailed(err)
	}
	if (err.passed || !TakesConnectFailed(p)) && !err.asked && !errors.Is(err, ErrStopped) {
		l.report(err)
	}
}

// AttemptFailer is a Protocol that wants to hear of an address as soon as it has
// failed, while its connect goes on with others.
type AttemptFailer interface {
	// AttemptFailed reports the address, the stage and the error, and what is left:
	// next holds the addresses that are being tried, followed by those that will be, in
	// order. The last failure, with none left, is reported by ConnectFailed, which
	// lists this one too. The connect may be stopped here.
	AttemptFailed(err *AttemptError, next []net.Addr)
}

// NopProtocol is a Protocol that does nothing and drops what it gets. Types that need
// only some of the three methods embed it and write those. It has no size; a struct
// embeds it first, since Go pads a struct that ends with a field of no size.
//
// On its own it is the protocol of a connection that no one wants any more, until that
// is closed.
type NopProtocol struct{}

var _ Protocol = NopProtocol{}

// ConnectionMade does nothing.
func (NopProtocol) ConnectionMade(Transport) {}

// DataReceived uses all of p and does nothing with it.
func (NopProtocol) DataReceived(p []byte) (int, error) { return len(p), nil }

// ConnectionLost does nothing.
func (NopProtocol) ConnectionLost(error) {}

// DataFunc is a Protocol that does nothing but receive: DataFunc(t.Write) is an echo,
// and any io.Writer's Write method will do.
type DataFunc func(p []byte) (n int, err error)

// ConnectionMade does nothing.
func (DataFunc) ConnectionMade(Transport) {}

// DataReceived calls f.
func (f DataFunc) DataReceived(p []byte) (int, error) { return f(p) }

// ConnectionLost does nothing.
func (DataFunc) ConnectionLost(error) {}
