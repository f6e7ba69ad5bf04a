package layer

import (
	"io"
	"net"
	"time"
)

// tlsWire is the net.Conn that crypto/tls sees. It never blocks the loop:
// during the handshake its Read yields, and afterwards it returns errAgain when
// there is nothing to read. Its Write takes everything, since crypto/tls treats
// a write error as final; flow control is up to the carrier.
type tlsWire tlsConn

var _ net.Conn = (*tlsWire)(nil)

// errAgain says that there is nothing to read now. Because it is a temporary
// error, crypto/tls keeps what it has and allows Read to be called again.
var errAgain error = againError{}

type againError struct{}

func (againError) Error() string   { return "nothing to read now" }
func (againError) Timeout() bool   { return true }
func (againError) Temporary() bool { return true }

func isAgain(err error) bool { return err == errAgain } //nolint:errorlint // crypto/tls hands it through as it is

// Read implements net.Conn. It goes no further than the record in progress.
func (w *tlsWire) Read(p []byte) (int, error) {
	for len(w.in) == 0 {
		h := w.hs
		if h == nil {
			return 0, errAgain
		}
		if !h.wait() {
			return 0, io.ErrClosedPipe
		}
	}
	first := w.record.have == 0
	n := w.record.next(w.in[:min(len(w.in), len(p))])
	if w.hs != nil {
		w.hs.last.see(first, w.in[:n])
	}
	copy(p, w.in[:n])
	w.in = w.in[n:]
	return n, nil
}

func (w *tlsWire) Write(p []byte) (int, error) {
	if w.hs != nil {
		// This is not the loop's goroutine, but one that the loop waits for.
		w.hs.out = append(w.hs.out, p...)
		return len(p), nil
	}
	w.send(p)
	if w.reading && w.blocked {
		if w.control += len(p); w.control > controlMax {
			(*tlsConn)(w).hold(holdControl)
		}
	}
	return len(p), nil
}

// send passes p down. The records of one large Write are joined: sending each
// by itself costs more than copying it.
func (w *tlsWire) send(p []byte) {
	if w.over {
		return
	}
	if j := w.joined; j != nil {
		if len(p) > cap(j.b)-len(j.b) {
			w.leave(j)
		}
		j.b = append(j.b, p...)
		return
	}
	_, _ = w.below.Write(p) // a loss is reported by ConnectionLost
}

// leave sends what was joined.
func (w *tlsWire) leave(j *tlsJoined) {
	if len(j.b) > 0 && !w.over {
		_, _ = w.below.Write(j.b) // a loss is reported by ConnectionLost
	}
	j.b = j.b[:0]
}

// Close implements net.Conn; crypto/tls calls it only for contexts, and has
// none here.
func (w *tlsWire) Close() error { return nil }

func (w *tlsWire) LocalAddr() net.Addr {
	if w.hs != nil {
		return w.hs.local
	}
	return w.below.LocalAddr()
}

func (w *tlsWire) RemoteAddr() net.Addr {
	if w.hs != nil {
		return w.hs.remote
	}
	return w.below.RemoteAddr()
}

// SetDeadline implements net.Conn. It has no effect: the loop's timers serve as
// deadlines.
func (w *tlsWire) SetDeadline(time.Time) error { return nil }

func (w *tlsWire) SetReadDeadline(time.Time) error { return nil }

func (w *tlsWire) SetWriteDeadline(time.Time) error { return nil }

// recordEnd follows the records of a stream (RFC 8446, 5.1).
type recordEnd struct {
	left uint16 // bytes of the payload to come
	have uint8  // bytes of the header seen, of headerLen
}

const headerLen = 5

// next returns how many bytes of p belong to the record in progress.
func (r *recordEnd) next(p []byte) int {
	n := 0
	for r.have < headerLen && n < len(p) {
		if r.have >= headerLen-2 {
			r.left = r.left<<8 | uint16(p[n])
		} else {
			r.left = 0
		}
		r.have++
		n++
	}
	if r.have < headerLen {
		return n
	}
	k := min(int(r.left), len(p)-n)
	if r.left -= uint16(k); r.left == 0 {
		r.have = 0
	}
	return n + k
}

// completes reports whether a record ends within p.
func (r recordEnd) completes(p []byte) bool {
	for len(p) > 0 {
		p = p[r.next(p):]
		if r.have == 0 {
			return true
		}
	}
	return false
}

// recordHead holds the beginning of the latest record.
type recordHead struct {
	b    [headerLen + 2]byte
	n    int
	more bool // the record is longer
}

// see takes bytes of a record; first says that they begin it.
func (r *recordHead) see(first bool, p []byte) {
	if first {
		r.n, r.more = 0, false
	}
	k := copy(r.b[r.n:], p)
	r.n += k
	r.more = r.more || k < len(p)
}

// plainAlert returns the alert in the record, unless the record is something
// else or is encrypted: encrypted alerts are longer in TLS 1.2, and have
// another record type in 1.3.
func (r *recordHead) plainAlert() (alert uint8, ok bool) {
	const typeAlert = 21
	return r.b[6], r.n == len(r.b) && !r.more && r.b[0] == typeAlert && r.b[1] == 3 && r.b[3] == 0 && r.b[4] == 2
}
