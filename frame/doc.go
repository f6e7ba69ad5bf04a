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
// DataReceived uses one frame and returns. The transport calls it again at once
// while frames are left, and looks in between whether it was paused, closed,
// aborted or given another protocol. So a callback that pauses reading is
// followed by no frame until reading is resumed, one that closes is the last,
// and one that hands over to another protocol hands over exactly the bytes
// behind its frame. Feeding a Decoder from elsewhere means doing the same: call
// again with the rest while what it returns is above 0.
//
// # Who keeps a frame that has not come whole
//
// Up to 4 KiB of it are left to the transport, unused, and the Decoder holds
// nothing. Of a longer one the Decoder takes what has come and holds it, in a
// buffer that grows with what arrives and never with what a length promises, so
// the transport's tail limit bounds no frame. At the end of the stream what is
// left and what is held count as unused together.
//
// # Limits
//
// A frame longer than the limit loses the connection with a *LimitError that
// names it, before any of its body is delivered: as soon as the length is known,
// or when more bytes without a delimiter have come than a frame may have. What
// is not in the format is a *SyntaxError.
package frame
