package weirtest

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/weir-io/weir"
)

// end is one end of a connection under test: a protocol that does what its
// hooks say, keeps what it got, and checks the order of its callbacks (G1, G4)
// and that none comes from inside a method that must not call back.
type end struct {
	t    *testing.T
	name string
	tr   weir.Transport
	hooks

	begun      bool   // it was given to Connect
	maybe      bool   // it may never be made
	got        []byte // what DataReceived used
	calls      int    // of DataReceived
	made, lost int
	eofs       int
	pauses     int
	resumes    int
	drains     int
	fails      int
	unused     int
	flooded    int   // bytes
	err        error // of ConnectionLost
	failure    *weir.ConnectError
	descriptor func() int // makes what some writes pass; nil: they pass nothing
	passed     int        // descriptors
	inData     bool
	locked     string // the method in progress that must not call back
	closed     bool   // Close or Abort was called: no DataReceived any more
}

// hooks say what an end does. A nil hook means that the end has no such
// optional callback, or does the default.
type hooks struct {
	onMade   func()
	onData   func(p []byte) (int, error)
	onEOF    func(unused int) (bool, error)
	onPause  func()
	onResume func()
	onDrain  func()
	buffer   func() []byte
	onLost   func(err error)
	onFail   func(err error)

	keepOpen bool // what EOFReceived answers if onEOF is nil
	noEOF    bool // it has no EOFReceived
}

func (e *end) String() string {
	return fmt.Sprintf("%s: made %d, %d calls with %d bytes used, ends %d, paused %d, resumed %d, drained %d, lost %d (%v)",
		e.name, e.made, e.calls, len(e.got), e.eofs, e.pauses, e.resumes, e.drains, e.lost, e.err)
}

// protocol is the end as a protocol that has only the callbacks of its script.
func (e *end) protocol() weir.Protocol {
	var s shape
	if !e.noEOF {
		s |= shapeEOF
	}
	if e.onPause != nil || e.onResume != nil {
		s |= shapePause
	}
	if e.onDrain != nil {
		s |= shapeDrain
	}
	if e.buffer != nil {
		s |= shapeBuffer
	}
	if e.onFail != nil {
		s |= shapeFail
	}
	if e.descriptor != nil {
		return shapedTaking(e, s)
	}
	return shaped(e, s)
}

// check says what is wrong with a callback that comes now.
func (e *end) check(callback string) {
	e.t.Helper()
	switch {
	case e.made != 1 && callback != "ConnectionMade":
		e.t.Errorf("%s: %s after %d ConnectionMade", e.name, callback, e.made)
	case e.lost != 0:
		e.t.Errorf("%s: %s after ConnectionLost", e.name, callback)
	case e.locked != "":
		e.t.Errorf("%s: %s from inside %s", e.name, callback, e.locked)
	case e.inData && callback != "PauseWriting":
		e.t.Errorf("%s: %s from inside DataReceived", e.name, callback)
	}
}

// abort aborts, and checks that nothing is called from inside.
func (e *end) abort() { e.alone("Abort", func() { e.closed = true; e.tr.Abort() }) }

// close closes, and checks that nothing is called from inside.
func (e *end) close() {
	e.alone("Close", func() {
		e.closed = true
		if err := e.tr.Close(); err != nil {
			e.t.Errorf("%s: Close: %v", e.name, err)
		}
	})
}

func (e *end) resume() { e.alone("ResumeReading", e.tr.ResumeReading) }

// alone calls f, and checks that no callback comes from inside it.
func (e *end) alone(method string, f func()) {
	was := e.locked
	e.locked = method
	f()
	e.locked = was
}

// write writes p, which must succeed.
func (e *end) write(p []byte) {
	e.t.Helper()
	write := e.tr.Write
	if e.descriptor != nil && e.passed < passMost && len(p) > 0 {
		e.passed++
		write = e.pass
	}
	if n, err := write(p); n != len(p) || err != nil {
		e.t.Errorf("%s: Write of %d bytes: %d, %v", e.name, len(p), n, err)
	}
}

// passMost is how many descriptors an end passes.
const passMost = 16

// pass writes p with a descriptor.
func (e *end) pass(p []byte) (int, error) {
	w, ok := weir.As[weir.DescriptorWriter](e.tr)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	fd := e.descriptor()
	n, err := w.WriteDescriptors(p, fd)
	if err != nil {
		closeDescriptors(fd)
	}
	return n, err
}

func closeDescriptors(fds ...int) {
	for _, fd := range fds {
		_ = os.NewFile(uintptr(fd), "passed").Close() // the test looks for what is left
	}
}

// flood writes until PauseWriting: the system may take many megabytes.
func (e *end) flood() {
	for e.pauses == e.resumes && e.lost == 0 {
		e.write(message(200_000))
		e.flooded += 200_000
		if e.flooded > 256<<20 {
			e.t.Errorf("%s: never told to pause", e.name)
			return
		}
	}
}

// writeEOF ends writing, which must succeed.
func (e *end) writeEOF() {
	e.t.Helper()
	if err := e.tr.WriteEOF(); err != nil {
		e.t.Errorf("%s: WriteEOF: %v", e.name, err)
	}
}

// The callbacks.

func (e *end) ConnectionMade(t weir.Transport) {
	e.check("ConnectionMade")
	if e.made++; e.made > 1 {
		e.t.Errorf("%s: ConnectionMade %d times", e.name, e.made)
	}
	e.tr = t
	if e.onMade != nil {
		e.onMade()
	}
}

func (e *end) DataReceived(p []byte) (int, error) {
	e.check("DataReceived")
	switch {
	case len(p) == 0:
		e.t.Errorf("%s: DataReceived of nothing", e.name)
	case e.eofs > 0:
		e.t.Errorf("%s: DataReceived after EOFReceived", e.name)
	case e.closed:
		e.t.Errorf("%s: DataReceived after Close or Abort (behaviours 21, 25)", e.name)
	}
	e.calls++
	if e.onData == nil {
		e.got = append(e.got, p...)
		return len(p), nil
	}
	e.inData = true
	defer func() { e.inData = false }()
	n, err := e.onData(p)
	if 0 < n && n <= len(p) {
		e.got = append(e.got, p[:n]...)
	}
	return n, err
}

func (e *end) DescriptorsReceived(fds []int, err error) {
	e.check("DescriptorsReceived")
	if len(fds) == 0 || err != nil {
		e.t.Errorf("%s: DescriptorsReceived of %d, %v", e.name, len(fds), err)
	}
	closeDescriptors(fds...)
}

func (e *end) EOFReceived(unused int) (bool, error) {
	e.check("EOFReceived")
	if e.eofs++; e.eofs > 1 {
		e.t.Errorf("%s: EOFReceived %d times", e.name, e.eofs)
	}
	e.unused = unused
	if e.onEOF != nil {
		return e.onEOF(unused)
	}
	return e.keepOpen, nil
}

func (e *end) PauseWriting() {
	e.check("PauseWriting")
	if e.pauses++; e.pauses != e.resumes+1 {
		e.t.Errorf("%s: PauseWriting %d times, ResumeWriting %d times (G4)", e.name, e.pauses, e.resumes)
	}
	if e.onPause != nil {
		e.onPause()
	}
}

func (e *end) ResumeWriting() {
	e.check("ResumeWriting")
	if e.resumes++; e.resumes != e.pauses {
		e.t.Errorf("%s: ResumeWriting %d times, PauseWriting %d times (G4)", e.name, e.resumes, e.pauses)
	}
	if e.onResume != nil {
		e.onResume()
	}
}

func (e *end) WriteDrained() {
	e.check("WriteDrained")
	e.drains++
	if n := e.tr.Buffered(); n != 0 {
		e.t.Errorf("%s: WriteDrained with %d bytes buffered", e.name, n)
	}
	if e.onDrain != nil {
		e.onDrain()
	}
}

func (e *end) WriteFailed(err error) {
	e.check("WriteFailed")
	if e.fails++; e.fails > 1 || err == nil {
		e.t.Errorf("%s: WriteFailed(%v), %d times", e.name, err, e.fails)
	}
	if n, werr := e.tr.Write([]byte("x")); n != 0 || !errors.Is(werr, weir.ErrClosed) {
		e.t.Errorf("%s: Write in WriteFailed: %d, %v", e.name, n, werr)
	}
	e.onFail(err)
}

func (e *end) ReadBuffer() []byte {
	if e.lost != 0 {
		e.t.Errorf("%s: ReadBuffer after ConnectionLost", e.name)
	}
	return e.buffer()
}

func (e *end) ConnectionLost(err error) {
	e.check("ConnectionLost")
	if e.lost++; e.lost > 1 {
		e.t.Errorf("%s: ConnectionLost %d times", e.name, e.lost)
	}
	e.err = err
	if e.onLost != nil {
		e.onLost(err)
	}
}

func (e *end) ConnectFailed(err *weir.ConnectError) {
	e.failure = err
	if !e.maybe {
		e.t.Errorf("%s: %v", e.name, err)
	}
}
