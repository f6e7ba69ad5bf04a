package weir

import "net"

// lower is the half of a stream that moves its bytes: a socket, which moves them with
// handles and Ops, or a carried, which has a Carrier move them. The stream calls down;
// the lower half calls up, from the loop's results or from its Feed.
//
//	           protocol
//	              ▲  callData, callEOF, callReadBuffer, ...
//	            stream                                 what a transport promises
//	│ write, flush, closeWrite,     ▲ deliver, ended, sent,
//	▼ want, close                   │ breakWriting, lose, closed
//	            lower                                  what moves the bytes
//
// A lower half calls the protocol through the stream alone. A stream calls a backend
// nowhere but in what only sockets have: passing descriptors.
type lower interface {
	// write sends as much of p as can be sent at once, without copying it, and returns
	// how many bytes that was. It is called while the buffer is empty.
	write(p []byte) int
	// flush sends as much of the buffer as it can now, and calls sent. It sends the
	// rest later, by itself.
	flush()
	// closeWrite sends the end of writing and reports whether that is done. If not, it
	// is called again after the next result.
	closeWrite() bool
	// canCloseWrite reports whether the writing direction can be ended alone.
	canCloseWrite() bool
	// want says what to do with incoming bytes.
	want(w wish)
	// close closes the lower half, which calls closed when that is done. Until then it
	// may be called again, with the same or a harder closeHow.
	close(how closeHow)
	// addr is the address of one end.
	addr(remote bool) net.Addr
	// count is a number of bytes that are outside the stream.
	count(what measure) int
}

// wish is what a stream wants done with incoming bytes.
type wish uint8

const (
	wantBytes wish = iota // they are delivered
	wantLater             // they stay where they are; a reset is noticed
	wantDrop              // they are dropped: the stream closes, and what was written is still being sent
	wantNone              // do not wait for anything
)

// closeHow is how a lower half is to close, the hardest last.
type closeHow uint8

const (
	closeFlushed closeHow = iota // everything written was taken: what the system holds is still sent
	closeReset                   // as closeFlushed, but the peer must not mistake it for a clean end
	closeQuiet                   // now, without a reset
	closeCut                     // now, and the peer must not mistake it for a clean end
)

// measure says which bytes count.
type measure uint8

const (
	bytesHeld    measure = iota // taken, and not yet handed to the system
	bytesUnacked                // handed to the system, and not known to have reached the peer's system
	bytesUnread                 // received, and not yet read; at least 1 if that cannot be known
)
