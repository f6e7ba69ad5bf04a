// Package frame turns the bytes of a stream into messages: lines, netstrings,
// length-prefixed and fixed-size frames.
//
//	bytes  ──▶ Decoder ──▶ func(frame []byte) error
//	           (a weir.Protocol, and a feed for any other source)
//
//	frame  ──▶ AppendLine, AppendNetstring, AppendPrefixed ──▶ bytes
//
// A Decoder is a weir.Protocol; nothing else is needed to serve lines:
//
//	func(t weir.Transport) weir.Protocol {
//		return frame.Lines(func(line []byte) error { ... })
//	}
//
// # One frame for each call
//
// DataReceived uses one frame and returns. The transport calls it again at once while
// frames are left, and checks in between whether it was paused, closed, aborted or
// given another protocol. So a callback that pauses reading is followed by no frame
// until reading is resumed, one that closes is the last, and one that hands over to
// another protocol hands over exactly the bytes after its frame. Code that feeds a
// Decoder from elsewhere must do the same: call again with the rest as long as
// DataReceived returns more than 0.
//
// # Who keeps an incomplete frame
//
// Up to 4 KiB of it are left to the transport, unused, and the Decoder holds nothing.
// If it is longer, the Decoder takes what has come and holds it, in a buffer that grows
// with what arrives and never with what a length promises; so the transport's tail
// limit does not bound a frame. At the end of the stream the bytes left and the bytes
// held both count as unused.
//
// # Limits
//
// A frame longer than the limit loses the connection with a *LimitError that names it,
// before any of its body is delivered: as soon as the length is known, or when more
// bytes without a delimiter have come than a frame may have. Bytes that are not in the
// format are a *SyntaxError.
package frame
