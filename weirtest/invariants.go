package weirtest

import (
	"fmt"
	"net"

	"github.com/weir-io/weir"
)

// Invariants sits between the protocols and the transports of a run's
// connections and checks at every callback and call:
//
//	G1  ConnectionMade at most once; ConnectionLost exactly once if made, last
//	G2  bytes received are a prefix of the bytes sent; with the end, all of them
//	G3  buffered bytes stay under the high mark plus one write (see Step)
//	G4  pause and resume alternate
//
// and that no callback comes from inside a method that must not call back. Both
// ends of a connection must be watched by the same Invariants for G2. It belongs
// to one goroutine.
type Invariants struct {
	fail  func(problem string)
	open  []*watched
	wires map[[2]string]*wire
	made  int
	lost  int
}

// NewInvariants returns an Invariants that reports every breach to fail.
func NewInvariants(fail func(problem string)) *Invariants {
	return &Invariants{fail: fail, wires: map[[2]string]*wire{}}
}

// wire is what one end of a connection has sent.
type wire struct {
	sent  []byte // not yet used by the other end
	total int    // bytes ever sent
	used  int    // bytes that the other end used
}

// watched is one connection: the protocol's transport and the transport's
// protocol.
type watched struct {
	weir.Transport
	v     *Invariants
	p     weir.Protocol
	shape shape
	name  string
	out   *wire
	in    *wire
	at    int // in v.open

	made, lost      int
	failed          int
	ended           bool // the peer's end was delivered
	kept            bool // and the answer kept the connection open
	wroteEOF        bool
	inData          bool
	held            bool // PauseReading was called, ResumeReading was not
	closed          bool // Close or Abort was called
	pauses, resumes int
	high            int
	largest         int    // bytes of the largest write
	inside          string // a callback that must not be nested
	locked          string // a method that must not call back
}

var (
	_ weir.Protocol           = (*watched)(nil)
	_ weir.EOFReceiver        = (*watched)(nil)
	_ weir.WritePauser        = (*watched)(nil)
	_ weir.Drainer            = (*watched)(nil)
	_ weir.WriteFailer        = (*watched)(nil)
	_ weir.BufferedProtocol   = (*watched)(nil)
	_ weir.AttemptFailer      = (*watched)(nil)
	_ weir.ConnectFailer      = (*watched)(nil)
	_ weir.MaybeConnectFailer = (*watched)(nil)
	_ weir.Transport          = (*watched)(nil)
)

// Protocol returns p, watched. It has the optional callbacks of p.
func (v *Invariants) Protocol(p weir.Protocol) weir.Protocol {
	w := &watched{v: v, p: p, shape: shapeOf(p), high: 64 << 10, name: "unconnected"}
	return shaped(w, w.shape)
}

// Factory returns a factory of watched protocols.
func (v *Invariants) Factory(f weir.Factory) weir.Factory {
	return func(t weir.Transport) weir.Protocol {
		p := f(t)
		if p == nil {
			return nil
		}
		return v.Protocol(p)
	}
}

// Open is how many watched connections were made and are not lost yet.
func (v *Invariants) Open() int { return v.made - v.lost }

// Made is how many watched connections were made.
func (v *Invariants) Made() int { return v.made }

// Step checks what can be checked at any moment: G3.
func (v *Invariants) Step() {
	for _, w := range v.open {
		bound := w.high + w.largest
		if layered(w.Transport) {
			bound = withOverhead(bound)
		}
		if n := w.Transport.Buffered(); n > bound {
			w.bad("%d bytes buffered; the high mark is %d, the largest write %d (G3)", n, w.high, w.largest)
			w.largest = n // once
		}
	}
}

// layered reports whether t is the transport above a layer.
func layered(t weir.Transport) bool {
	u, ok := weir.As[interface{ Unwrap() weir.Transport }](t)
	return ok && u.Unwrap() != nil
}

// withOverhead is the size of n bytes as layers may keep them: each record and
// frame has a header, and the first records of a stream are short.
func withOverhead(n int) int { return n + n/16 + 1<<10 }

func (w *watched) bad(format string, args ...any) {
	w.v.fail(w.name + ": " + fmt.Sprintf(format, args...))
}

// enter checks a callback that comes now, and returns the function that leaves it.
func (w *watched) enter(callback string) func() {
	switch {
	case w.made == 0:
		w.bad("%s before ConnectionMade (G1)", callback)
	case w.lost > 0:
		w.bad("%s after ConnectionLost (G1)", callback)
	case w.locked != "":
		w.bad("%s from inside %s", callback, w.locked)
	case w.inside != "" && callback != "PauseWriting":
		w.bad("%s from inside %s", callback, w.inside)
	}
	was := w.inside
	w.inside = callback
	return func() { w.inside = was }
}

func (w *watched) ConnectionMade(t weir.Transport) {
	if w.made++; w.made > 1 {
		w.bad("ConnectionMade %d times (G1)", w.made)
	}
	w.v.made++
	w.Transport = t
	local, remote := addrText(t.LocalAddr()), addrText(t.RemoteAddr())
	w.name = local + " to " + remote
	w.out = &wire{}
	w.v.wires[[2]string{local, remote}] = w.out
	w.at = len(w.v.open)
	w.v.open = append(w.v.open, w)
	defer w.enter("ConnectionMade")()
	w.p.ConnectionMade(w)
}

func addrText(a net.Addr) string { return a.String() }

// peer finds the other end's wire.
func (w *watched) peer() *wire {
	if w.in == nil {
		w.in = w.v.wires[[2]string{addrText(w.RemoteAddr()), addrText(w.LocalAddr())}]
	}
	return w.in
}

func (w *watched) DataReceived(p []byte) (int, error) {
	defer w.enter("DataReceived")()
	switch {
	case w.ended:
		w.bad("DataReceived after the end (G1)")
	case w.closed:
		w.bad("DataReceived after Close or Abort")
	case w.held:
		w.bad("DataReceived while reading is paused")
	case len(p) == 0:
		w.bad("DataReceived of nothing")
	}
	in := w.peer()
	if in == nil {
		w.bad("%d bytes from an end that was never made (G2)", len(p))
	} else if len(p) > len(in.sent) || string(p) != string(in.sent[:len(p)]) {
		w.bad("bytes at %d are not those that were sent (G2)", in.used)
	}
	w.inData = true
	n, err := w.p.DataReceived(p)
	w.inData = false
	if in != nil && 0 < n && n <= len(p) && n <= len(in.sent) {
		in.used += n
		in.sent = in.sent[n:]
	}
	return n, err
}

func (w *watched) EOFReceived(unused int) (bool, error) {
	defer w.enter("EOFReceived")()
	if w.ended {
		w.bad("a second end (G1)")
	}
	w.ended = true
	if in := w.peer(); in != nil && in.used+unused != in.total {
		w.bad("the end after %d bytes and %d unused of %d sent (G2)", in.used, unused, in.total)
	}
	keep, err := w.p.(weir.EOFReceiver).EOFReceived(unused)
	w.kept = keep && err == nil
	return keep, err
}

func (w *watched) PauseWriting() {
	defer w.enter("PauseWriting")()
	if w.pauses++; w.pauses != w.resumes+1 {
		w.bad("PauseWriting %d times, ResumeWriting %d times (G4)", w.pauses, w.resumes)
	}
	w.p.(weir.WritePauser).PauseWriting()
}

func (w *watched) ResumeWriting() {
	defer w.enter("ResumeWriting")()
	if w.resumes++; w.resumes != w.pauses {
		w.bad("ResumeWriting %d times, PauseWriting %d times (G4)", w.resumes, w.pauses)
	}
	w.p.(weir.WritePauser).ResumeWriting()
}

func (w *watched) WriteDrained() {
	defer w.enter("WriteDrained")()
	w.p.(weir.Drainer).WriteDrained()
}

func (w *watched) WriteFailed(err error) {
	defer w.enter("WriteFailed")()
	if w.failed++; w.failed > 1 {
		w.bad("WriteFailed %d times", w.failed)
	}
	w.p.(weir.WriteFailer).WriteFailed(err)
}

func (w *watched) ReadBuffer() []byte { return w.p.(weir.BufferedProtocol).ReadBuffer() }

func (w *watched) ConnectionLost(err error) {
	leave := w.enter("ConnectionLost")
	if w.lost++; w.lost > 1 {
		w.bad("ConnectionLost %d times (G1)", w.lost)
		return
	}
	w.v.lost++
	if err == nil && w.shape&shapeEOF != 0 && !w.closed && (!w.ended || w.kept && !w.wroteEOF) {
		w.bad("a clean end that neither side asked for")
	}
	last := w.v.open[len(w.v.open)-1]
	w.v.open[w.at], last.at = last, w.at
	w.v.open = w.v.open[:len(w.v.open)-1]
	w.p.ConnectionLost(err)
	leave()
}

func (w *watched) AttemptFailed(err *weir.AttemptError, next []net.Addr) {
	if w.made > 0 {
		w.bad("AttemptFailed after ConnectionMade (G1)")
	}
	if f, ok := w.p.(weir.AttemptFailer); ok {
		f.AttemptFailed(err, next)
	}
}

func (w *watched) ConnectFailed(err *weir.ConnectError) {
	if w.made > 0 {
		w.bad("ConnectFailed after ConnectionMade (G1)")
	}
	if f, ok := w.p.(weir.ConnectFailer); ok {
		f.ConnectFailed(err)
	}
}

func (w *watched) TakesConnectFailed() bool { return weir.TakesConnectFailed(w.p) }

// The transport that the protocol sees.

// Unwrap gives weir.As the transport below.
func (w *watched) Unwrap() weir.Transport { return w.Transport }

// wrote notes bytes that are about to be written; they count before the call,
// since the other end may see them before Write returns.
func (w *watched) wrote(p []byte) {
	w.out.sent = append(w.out.sent, p...)
	w.out.total += len(p)
}

// unwrote takes back bytes that were not accepted.
func (w *watched) unwrote(n int) {
	w.out.sent = w.out.sent[:len(w.out.sent)-n]
	w.out.total -= n
}

func (w *watched) Write(p []byte) (int, error) {
	w.largest = max(w.largest, len(p))
	w.wrote(p)
	n, err := w.Transport.Write(p)
	w.unwrote(len(p) - n)
	return n, err
}

func (w *watched) Writev(bufs [][]byte) (int, error) {
	total := 0
	for _, p := range bufs {
		w.wrote(p)
		total += len(p)
	}
	w.largest = max(w.largest, total)
	n, err := w.Transport.Writev(bufs)
	w.unwrote(total - n)
	return n, err
}

func (w *watched) Close() error {
	defer w.lock("Close")()
	w.closed = true
	return w.Transport.Close()
}

func (w *watched) Abort() {
	defer w.lock("Abort")()
	w.closed = true
	w.Transport.Abort()
}

func (w *watched) WriteEOF() error {
	err := w.Transport.WriteEOF()
	w.wroteEOF = w.wroteEOF || err == nil
	return err
}

func (w *watched) PauseReading() {
	w.held = true
	w.Transport.PauseReading()
}

func (w *watched) ResumeReading() {
	defer w.lock("ResumeReading")()
	w.held = false
	w.Transport.ResumeReading()
}

func (w *watched) lock(method string) func() {
	was := w.locked
	w.locked = method
	return func() { w.locked = was }
}

func (w *watched) SetWriteMarks(high, low int) error {
	err := w.Transport.SetWriteMarks(high, low)
	if err == nil {
		w.high = max(w.high, high) // what is buffered already may stay
	}
	return err
}

func (w *watched) Protocol() weir.Protocol {
	if w.Transport.Protocol() == nil {
		return nil
	}
	return w.p
}

func (w *watched) SetProtocol(p weir.Protocol) {
	w.p, w.shape = p, shapeOf(p)
	if !w.inData {
		w.held = false // a pause ends with the protocol that asked for it
	}
	w.Transport.SetProtocol(shaped(w, w.shape))
}

// shapeOf looks up which optional callbacks p has.
func shapeOf(p weir.Protocol) (s shape) {
	if _, ok := p.(weir.EOFReceiver); ok {
		s |= shapeEOF
	}
	if _, ok := p.(weir.WritePauser); ok {
		s |= shapePause
	}
	if _, ok := p.(weir.Drainer); ok {
		s |= shapeDrain
	}
	if _, ok := p.(weir.BufferedProtocol); ok {
		s |= shapeBuffer
	}
	if _, ok := p.(weir.WriteFailer); ok {
		s |= shapeFail
	}
	return s
}
