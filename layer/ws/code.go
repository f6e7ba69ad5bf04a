package ws

import (
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/weir-io/weir/layer"
)

// Code says why a WebSocket was closed (RFC 6455, 7.4.1).
type Code uint16

// The codes. Those that never appear in a frame say what was found instead.
const (
	CodeNormal        Code = 1000
	CodeGoingAway     Code = 1001
	CodeProtocolError Code = 1002
	CodeUnsupported   Code = 1003
	CodeNone          Code = 1005 // the peer's close had none
	CodeAbnormal      Code = 1006 // there was no close
	CodeInvalid       Code = 1007 // text that is not UTF-8
	CodePolicy        Code = 1008
	CodeTooBig        Code = 1009
	CodeExtension     Code = 1010
	CodeInternal      Code = 1011
)

func (c Code) String() string { return strconv.Itoa(int(c)) }

// sendable reports whether a frame may carry the code.
func (c Code) sendable() bool {
	switch {
	case c >= 3000 && c < 5000:
		return true
	case c < 1000 || c > 1014:
		return false
	}
	return c != 1004 && c != CodeNone && c != CodeAbnormal
}

// clean reports whether the code means a regular end and not a failure.
func (c Code) clean() bool { return c == CodeNormal || c == CodeGoingAway || c == CodeNone }

// PongError is the reason when a connection's peer sent nothing for
// Config.PingEvery, and again nothing, not even a pong, for as long after the
// ping. It also matches layer.ErrTimeout.
type PongError struct {
	After time.Duration // Config.PingEvery
}

func (e *PongError) Error() string { return fmt.Sprintf("no pong within %v", e.After) }

// Unwrap returns layer.ErrTimeout.
func (e *PongError) Unwrap() error { return layer.ErrTimeout }

// MessageError is the reason when a connection's peer began a message and did
// not end it within Config.MessageTimeout. It also matches layer.ErrTimeout.
type MessageError struct {
	After time.Duration // Config.MessageTimeout
}

func (e *MessageError) Error() string {
	return fmt.Sprintf("a message that did not end within %v", e.After)
}

// Unwrap returns layer.ErrTimeout.
func (e *MessageError) Unwrap() error { return layer.ErrTimeout }

// CloseError is the reason when the peer closed the connection with a code that
// is not a clean end, or ended it without a close (CodeAbnormal; the error then
// also matches io.ErrUnexpectedEOF).
type CloseError struct {
	Code   Code
	Reason string // the peer's words; quote them before showing them
}

func (e *CloseError) Error() string {
	if e.Code == CodeAbnormal {
		return "the stream ended without a close (code 1006)"
	}
	if e.Reason == "" {
		return fmt.Sprintf("closed by the peer with code %d", e.Code)
	}
	return fmt.Sprintf("closed by the peer with code %d, %q", e.Code, e.Reason)
}

// Unwrap returns io.ErrUnexpectedEOF for CodeAbnormal.
func (e *CloseError) Unwrap() error {
	if e.Code == CodeAbnormal {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// parseClose reads the payload of a close frame.
func parseClose(p []byte) (Code, string, error) {
	if len(p) == 0 {
		return CodeNone, "", nil
	}
	if len(p) == 1 {
		return 0, "", badFrame("a close of one byte")
	}
	c := Code(binary.BigEndian.Uint16(p))
	if !c.sendable() {
		return 0, "", badFrame("a close with code %d", c)
	}
	if !utf8.Valid(p[2:]) {
		return 0, "", &ProtocolError{CodeInvalid, "a close whose reason is not UTF-8"}
	}
	return c, string(p[2:]), nil
}

// appendClose appends the payload of a close frame; a reason that is too long
// is cut between characters.
func appendClose(b []byte, c Code, reason string) []byte {
	if c == CodeNone {
		return b
	}
	for len(reason) > controlMax-2 || !utf8.ValidString(reason) && reason != "" {
		_, n := utf8.DecodeLastRuneInString(reason)
		reason = reason[:len(reason)-n]
	}
	return append(binary.BigEndian.AppendUint16(b, uint16(c)), reason...)
}
