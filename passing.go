package weir

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
)

// DescriptorReceiver is a Protocol that takes the descriptors that its peer passes over
// a UNIX stream socket (SCM_RIGHTS). Descriptors that come to any other protocol, or
// through a layer, are closed.
type DescriptorReceiver interface {
	// DescriptorsReceived gets descriptors no later than DataReceived gets the byte that
	// they were passed with, and in the order in which they were passed. They are
	// close-on-exec, and belong to the protocol from now on: to pass to Attach, to
	// ListenFD, or to close. The slice is lent until the call returns. err is not nil if
	// the system could not make all of them, for example because the process may have no
	// more descriptors: the others are lost.
	DescriptorsReceived(fds []int, err error)
}

// DescriptorWriter is the ability of a transport to pass descriptors. Find it with As on
// the transport itself. Every transport of a loop has it, and all but UNIX stream
// sockets return errors.ErrUnsupported.
type DescriptorWriter interface {
	// WriteDescriptors is Write for p, with descriptors that reach the peer no later than
	// p's first byte. p must not be empty, since nothing travels without a byte. At most
	// 253 descriptors go with one p. If the error is nil, the descriptors belong to the
	// transport: it closes them once they are passed, and also if the connection is lost
	// before. Otherwise they are still the caller's. ErrTooManyDescriptors for 253 or
	// fewer means that 1024 would be waiting, since the peer is slow to take them:
	// WriteDrained says when to try again.
	WriteDescriptors(p []byte, fds ...int) (int, error)
}

// ErrTooManyDescriptors is returned by WriteDescriptors for more descriptors than one
// write takes (253), or while as many wait as a transport keeps (1024).
var ErrTooManyDescriptors = errors.New("weir: too many descriptors wait to be passed")

// ErrNoBytes is returned by WriteDescriptors for descriptors without a byte.
var ErrNoBytes = errors.New("weir: descriptors need at least one byte to travel with")

// passingMost is how many descriptors wait to be passed on one transport.
const passingMost = 1024

// passRetry is when passing is tried again after the system had as many descriptors on
// their way as it allows a user (ETOOMANYREFS).
const passRetry = 10 * time.Millisecond

// receiveMost is how many reads with descriptors are made before others get their turn.
const receiveMost = 16

// passage is descriptors that wait to be passed.
type passage struct {
	after int // how many bytes of the buffer come before theirs
	fds   []int
}

func (s *stream) WriteDescriptors(p []byte, fds ...int) (int, error) {
	if err := s.writable("WriteDescriptors"); err != nil {
		return 0, err
	}
	k, ok := s.lower.(*socket)
	switch {
	case !ok || !k.passes() || k.x.splice != nil:
		return 0, fmt.Errorf("weir: passing descriptors over %s: %w", s.name(), errors.ErrUnsupported)
	case len(fds) == 0:
		return s.Write(p)
	case len(p) == 0:
		return 0, ErrNoBytes
	case len(fds) > sys.RightsMost || k.x.passes+len(fds) > passingMost:
		return 0, ErrTooManyDescriptors
	}
	for _, fd := range fds {
		if err := sys.IsOpen(fd); err != nil {
			return 0, fmt.Errorf("weir: descriptor %d: %w", fd, err)
		}
	}
	s.sendGathered()
	w := passage{fds: slices.Clone(fds)}
	if s.out != nil {
		w.after = s.out.n
	}
	x := s.extra()
	x.passing = append(x.passing, w)
	x.passes += len(fds)
	s.buffer(p)
	s.overflow()
	return len(p), nil
}

// passes reports whether descriptors can travel over the socket.
func (k *socket) passes() bool {
	if k.net != netUnix || k.rh != k.wh || k.wh == backend.None {
		return false
	}
	_, is := k.loop.be.(backend.DescriptorLender)
	return is || k.loop.caps.Descriptors
}

// control calls f with the socket's descriptor.
func (k *socket) control(f func(fd int) error) error {
	if k.loop.caps.Descriptors {
		return f(int(k.rh))
	}
	c, ok := k.loop.be.(backend.DescriptorLender)
	if !ok {
		return errors.ErrUnsupported
	}
	var err error
	if e := c.Control(k.rh, func(fd int) { err = f(fd) }); e != nil {
		return e
	}
	return err
}

// pass sends the buffer's first bytes with the descriptors that are due with them, and
// reports whether there is more to do now.
func (k *socket) pass() bool {
	if k.x.passLater || k.x.room {
		return false
	}
	o, all := k.out, k.x.passing
	p := o.chunks[0]
	if len(all) > 1 && all[1].after < len(p) {
		p = p[:all[1].after]
	}
	n := 0
	err := k.control(func(fd int) (err error) {
		n, err = sys.SendRights(fd, p, all[0].fds)
		return err
	})
	switch {
	case err == nil:
		first := all[0]
		k.x.passing = slices.Delete(all, 0, 1)
		k.x.passes -= len(first.fds)
		sys.CloseAll(first.fds...)
		k.wrote()
		k.took(n)
		k.sent(n)
		return true
	case errors.Is(err, syscall.EAGAIN):
		k.extra().room = true // want waits for it
	case errors.Is(err, syscall.ETOOMANYREFS):
		x := k.extra()
		x.passLater = true
		k.loop.After(passRetry, func() {
			x.passLater = false
			k.touch()
		})
	default:
		k.writeFailed(err)
	}
	return false
}

// took brings what waits to be passed closer by n bytes.
func (k *socket) took(n int) {
	for i := range k.x.passing {
		k.x.passing[i].after -= n
	}
}

// dropPassing closes the descriptors that wait to be passed: their bytes will not be
// sent.
func (s *stream) dropPassing() {
	if s.x.passes == 0 {
		return
	}
	for _, w := range s.x.passing {
		sys.CloseAll(w.fds...)
	}
	s.x.passing, s.x.passes, s.x.room = nil, 0, false
}

// receives reports whether what is read may come with descriptors that the protocol
// wants.
func (k *socket) receives() bool { return k.caps&capDescriptors != 0 && k.passes() }

// armReady waits for ev, whatever else the read Op was doing: a backend serves one
// Ready a handle.
func (k *socket) armReady(ev backend.Events) {
	if k.rop.Armed() && k.rop.Kind == backend.Ready && k.rop.Events == ev {
		return
	}
	if k.rop.Armed() && !k.loop.be.Cancel(&k.rop) {
		return // its last result calls sync again
	}
	k.rop.Events = ev
	k.arm(backend.Ready, 0, nil)
}

// readyDone takes a result of armReady.
func (k *socket) readyDone() {
	if k.rop.Events&backend.Readable != 0 && k.phase == phaseOpen && !k.held() {
		k.receive()
	}
}

// receive reads while there is something to read.
func (k *socket) receive() {
	for range receiveMost {
		n, err := k.receiveOnce()
		if err != nil && err != backend.ErrAgain {
			k.lose(k.opError("read", err))
		}
		if n == 0 || err != nil || k.held() || k.phase != phaseOpen || !k.receives() {
			return
		}
	}
}

// receiveOnce reads once, delivers what came, and returns how many bytes that was.
func (k *socket) receiveOnce() (n int, err error) {
	buf := []byte(nil)
	if k.caps&capBuffer != 0 {
		if buf = k.callReadBuffer(); len(buf) == 0 {
			k.lose(ErrNoBuffer) // no effect if it is lost already
			return 0, nil
		}
	} else {
		buf = k.loop.pool.Get()
		defer k.loop.pool.Put(buf)
	}
	if k.loop.rights == nil {
		k.loop.rights = make([]byte, sys.RightsSpace())
	}
	var fds []int
	err = k.control(func(fd int) (err error) {
		n, fds, err = sys.RecvRights(fd, buf, k.loop.rights)
		return err
	})
	cut := errors.Is(err, sys.ErrRightsCut)
	switch {
	case errors.Is(err, syscall.EAGAIN):
		return 0, backend.ErrAgain
	case err != nil && !cut:
		return 0, err
	}
	if len(fds) > 0 || cut {
		k.callDescriptors(fds, err)
	}
	switch {
	case k.phase >= phaseClosing:
	case n == 0:
		k.ended(nil)
	default:
		if k.tie != nil {
			k.tie.came(n)
		}
		k.deliver(buf[:n:n])
	}
	return n, nil
}

func (k *socket) callDescriptors(fds []int, err error) {
	defer k.guard("DescriptorsReceived")
	r, ok := k.proto.(DescriptorReceiver)
	if !ok || k.phase >= phaseClosing {
		sys.CloseAll(fds...)
		return
	}
	r.DescriptorsReceived(fds, err)
}

// Detacher is the ability of a transport to give its descriptor away, for example to
// pass it to another process. Find it with As on the transport itself.
type Detacher interface {
	// Detach ends the transport and returns the descriptor of its connection, from which
	// nothing was read. It belongs to the caller, and is non-blocking and close-on-exec.
	// Detach works inside ConnectionMade, and before anything was written; later it
	// fails, and so it does where no descriptor is behind the transport
	// (errors.ErrUnsupported). ConnectionLost(nil) follows.
	Detach() (fd int, err error)
}

var errLate = errors.New("weir: Detach works only inside ConnectionMade, before the first write")

func (s *stream) Detach() (int, error) {
	if err := s.loop.check("Detach"); err != nil {
		return -1, err
	}
	k, ok := s.lower.(*socket)
	_, is := s.loop.be.(backend.DescriptorLender)
	switch {
	case !ok || k.rh != k.wh || !is && !s.loop.caps.Descriptors:
		return -1, fmt.Errorf("weir: the descriptor of %s: %w", s.name(), errors.ErrUnsupported)
	case s.phase != phaseOpen || s.flags&fMade == 0 || k.rop.Armed() || s.out != nil || len(s.tail) > 0 || s.flags&(fEOF|fWriteEOF|fInData) != 0 || k.x.splice != nil || k.x.spliceFrom != nil:
		return -1, errLate
	}
	k.probeNow()
	if s.loop.caps.Descriptors {
		h := k.giveUp()
		s.loop.shutHandle(h, backend.Forget)
		return int(h), nil
	}
	fd := -1
	err := k.control(func(have int) (err error) {
		fd, err = sys.Dup(have)
		return err
	})
	if err != nil {
		return -1, fmt.Errorf("weir: the descriptor of %s: %w", s.name(), err)
	}
	s.loop.shutHandle(k.giveUp(), backend.CloseFlat)
	return fd, nil
}

// Credentials say who is at the other end of a UNIX socket.
type Credentials struct {
	PID      int // the process; 0 if the system does not say. It may have ended, and its number mean another
	UID, GID uint32
}

// Peered is the ability of a transport to say who its peer is. Find it with As; through
// layers, it is the peer of the lowest transport.
type Peered interface {
	// PeerCredentials says as whom the peer ran when it connected or listened. The kernel
	// vouches for it. For all but UNIX sockets that are open the error is
	// errors.ErrUnsupported.
	PeerCredentials() (Credentials, error)
	// PeerGroups are the groups that it ran with then: Credentials.GID and the
	// supplementary ones. macOS and FreeBSD tell at most sixteen. The slice is the
	// caller's.
	PeerGroups() ([]uint32, error)
}

func (s *stream) PeerCredentials() (c Credentials, err error) {
	err = s.askPeer("PeerCredentials", func(fd int) error {
		u, err := sys.PeerOf(fd)
		c = Credentials{PID: u.PID, UID: u.UID, GID: u.GID}
		return err
	})
	return c, err
}

// PeerGroups implements Peered.
func (s *stream) PeerGroups() (groups []uint32, err error) {
	err = s.askPeer("PeerGroups", func(fd int) (err error) {
		groups, err = sys.GroupsOf(fd)
		return err
	})
	return groups, err
}

// askPeer calls ask with the descriptor of the lowest stream, if that is a UNIX socket.
func (s *stream) askPeer(method string, ask func(fd int) error) error {
	if err := s.loop.check(method); err != nil {
		return err
	}
	if u := s.below(); u != nil {
		return u.askPeer(method, ask)
	}
	k, ok := s.lower.(*socket)
	if !ok || !k.passes() {
		return fmt.Errorf("weir: credentials of the peer of %s: %w", s.name(), errors.ErrUnsupported)
	}
	return k.control(ask)
}
