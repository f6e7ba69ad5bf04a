package serial

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/sys"
)

// ErrAway is returned while the device is gone.
var ErrAway = errors.New("serial: the device is not there")

// ErrStopped is the reason of a connection that was closed while the other end stopped the
// line, for longer than Config.CloseWait: what was unsent was dropped.
var ErrStopped = errors.New("serial: the other end stopped the line, and what was not sent yet was dropped")

// ErrCarrier is why a device counts as gone that has dropped carrier detect: see
// Config.Carrier.
var ErrCarrier = errors.New("carrier detect was dropped")

// GoneError is the reason of a connection whose device is gone and, if it was waited for,
// did not come back; with ErrCarrier, of one whose device dropped carrier detect.
type GoneError struct {
	Path string
	Wait time.Duration // how long it was waited for
	Err  error         // why it counts as gone, or cannot be opened again; may be nil
}

func (e *GoneError) Error() string {
	if errors.Is(e.Err, ErrCarrier) {
		return "serial: " + e.Path + ": " + e.Err.Error()
	}
	s := "serial: " + e.Path + " is gone"
	if e.Wait > 0 {
		s += fmt.Sprintf(" and did not come back within %v", e.Wait)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *GoneError) Unwrap() error { return e.Err }

// Port is a serial line in use. It is the carrier of its Transport. Its methods belong to
// the loop's goroutine.
//
//	Open ──▶ there ──────────────▶ away ──▶ over       Absence passed
//	           ▲  the device is gone │
//	           └─────────────────────┘ it is back
//	         there or away ──▶ closing ──▶ over ──▶ closed
//
// A line that is over is closed on a goroutine of its own, since that may block: for the
// last bytes, and in the driver.
type Port struct {
	loop   *weir.Loop
	tenant *weir.Tenant // nil: Start was not given one
	path   string
	cfg    Config
	feed   *weir.Feed
	below  weir.Transport // of the device; nil while it is away
	fd     int            // a second descriptor of it, for its settings; -1 while it is away
	was    sys.SerialState

	paused  bool // what is above wants no bytes
	blocked bool // what is below wants none
	closing bool
	opening bool // in Open, which blocks: what fails is closed before it returns
	over    bool // it ends with reason, once the device's transport and the line are closed
	reason  error
	drop    bool      // over: what is unsent is dropped
	closer  *closer   // it closes the line; nil: none does
	opener  *opener   // away: it opens the device; nil: none does
	closed  func()    // it is over, and the line closed; nil: no one is to be told
	ended   bool      // CloseWrite was called
	came    bool      // bytes came since the last look
	unsent  int       // at the last look
	until   time.Time // closing: when to give up; away: until when to wait
	gone    error     // why it is away
	timer   *weir.Timer
	breaks  *weir.Timer // the end of a break
	broken  bool        // a break runs
	watch   *linesWatch // nil: no one wants to know, or the device is away
}

// How often the port looks at what the system reports by no event.
const (
	lookForDevice = 100 * time.Millisecond
	lookAtUnsent  = 10 * time.Millisecond
)

// closeWait is CloseWait's default.
const closeWait = 10 * time.Second

// Open opens the line at path, such as /dev/ttyUSB0, and makes a transport of it, whose
// protocol f makes. It opens, and sets, without waiting for a carrier. The error is what
// the system says, a *fs.PathError if it is about the path, or what is wrong with the
// Config; weir.ErrClosed if f refused it. Of the options, those of Loop.Carry have an effect.
// It is to be called on the loop's goroutine; f and the protocol's ConnectionMade run before it
// returns. It may block in the driver, which asks a USB device for its settings: Start does not.
//
// Transport.Close sends what was written, unless the other end stops it for
// Config.CloseWait, which ends with ErrStopped; Abort drops it. The settings are put back when
// the line is closed, except of one that is Shared; what the end does to DTR and RTS is as
// HangUp says. A goroutine, one of each line at most, does that, since a driver may block in it;
// so does one that opens a device that was away.
// ConnectionLost comes when it has finished, or is stuck in the driver for longer than CloseWait
// and a second; when the loop is closed, it is waited for a second.
func Open(l *weir.Loop, path string, c Config, f weir.Factory, opts ...weir.StreamOption) (*Port, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	p := &Port{loop: l, path: path, cfg: c, fd: -1, opening: true}
	o := c.openNow(path)
	if o.err != nil {
		return nil, o.err
	}
	if err := p.begin(o, f, opts); err != nil {
		return nil, err
	}
	return p, nil
}

// begin makes the transports of a line that was opened, and has f make the protocol. If it
// fails the line is closed.
func (p *Port) begin(o *opening, f weir.Factory, opts []weir.StreamOption) (err error) {
	blocks := p.opening
	if p.feed, err = p.loop.Carry(p, weir.WithTenant(p.tenant), weir.JoinOptions(opts...)); err != nil {
		p.hold(o)
		p.over, p.reason, p.drop = true, err, true
		p.finish()
		return err
	}
	p.timer, p.breaks = p.loop.NewTimer(p.look), p.loop.NewTimer(p.breakOver)
	if err = p.attach(o); err == nil {
		err = o.unbroken
	}
	if err == nil {
		err = p.watchLines(o)
	}
	if err != nil {
		p.end(err)
		return err
	}
	p.opening = false
	if !p.feed.Begin(f) {
		p.opening = blocks
		p.end(nil)
		return weir.ErrClosed
	}
	return nil
}

// hold takes a line that was opened, without a transport yet.
func (p *Port) hold(o *opening) {
	p.fd, p.was = o.fd, o.was
	p.broken = o.broke > 0
}

// attach makes the device's transport of a line that was opened, and of a duplicate that
// stays here: so that the line can be set, and is closed by us, when closing it need not wait.
// If it fails the port holds the line all the same.
func (p *Port) attach(o *opening) error {
	p.hold(o)
	if p.broken {
		p.breaks.Set(o.broke)
	}
	if err := p.setAgain(o); err != nil {
		return err
	}
	second, err := sys.Dup(o.fd)
	if err != nil {
		return err
	}
	p.fd = second
	if _, err = p.loop.Attach(o.fd, p.path, func(t weir.Transport) weir.Protocol {
		p.below = t
		return (*device)(p) // the line is its tenant's, by the stream on top: this one would be a second connection
	}); err != nil {
		if !errors.Is(err, weir.ErrClosed) {
			sys.CloseAll(o.fd)
		}
		p.below = nil
	}
	return err
}

// setAgain sets a line for which SetConfig was called while it was being opened.
func (p *Port) setAgain(o *opening) error {
	want := p.cfg.settings()
	if want.Exclusive = o.set.Exclusive; *want == o.set {
		return nil
	}
	return sys.SetSerial(o.fd, want)
}

// letGo closes the second descriptor, and calls then once it is closed, or cannot be; nil: no
// one waits for that. drop says that what is unsent is dropped.
func (p *Port) letGo(drop bool, then func(error)) {
	if p.breaks != nil {
		p.breaks.Stop()
	}
	if w := p.watch; w != nil {
		p.watch = nil
		_ = p.loop.RemoveSource(w) // it is there until the loop ends
	}
	if p.fd < 0 {
		if then != nil {
			then(nil)
		}
		return
	}
	e := p.cfg.ending(p.was, drop, p.broken)
	fd := p.fd
	p.fd, p.broken = -1, false
	if p.opening {
		p.cfg.close(fd, e)
		if then != nil {
			then(nil)
		}
		return
	}
	p.closer = closeLine(p, func() bool { return p.cfg.close(fd, e) }, then)
}

// Transport is the transport above the line, the same one while the device is away.
func (p *Port) Transport() weir.Transport { return p.feed.Transport() }

// Config is how the line was asked to be set.
func (p *Port) Config() Config { return p.cfg }

// SetConfig changes the line's settings, except Shared and LinesChanged. Bytes that are being
// sent may go out with the old settings or the new.
func (p *Port) SetConfig(c Config) error {
	c, err := c.withDefaults()
	if err != nil {
		return err
	}
	c.Shared, c.open, c.close, c.setBreak, c.lines = p.cfg.Shared, p.cfg.open, p.cfg.close, p.cfg.setBreak, p.cfg.lines
	c.LinesChanged = p.cfg.LinesChanged
	if p.fd >= 0 {
		if err := sys.SetSerial(p.fd, c.settings()); err != nil {
			return err
		}
	}
	p.cfg = c
	return nil
}

// Kept is how the line is set in fact: drivers leave out what they cannot do without
// saying so. Only what a device can be asked for counts; the rest is as in Config.
func (p *Port) Kept() (Config, error) {
	if p.fd < 0 {
		return Config{}, ErrAway
	}
	s, err := sys.Serial(p.fd)
	if err != nil {
		return Config{}, err
	}
	c := p.cfg
	c.Speed, c.Bits, c.StopBits, c.Carrier, c.HangUp = s.Speed, s.Bits, s.Stop, s.Carrier, s.HangUp
	for i := range letters {
		if letters[i] == s.Parity {
			c.Parity = Parity(i)
		}
	}
	switch c.Flow = NoFlow; {
	case s.RTSCTS:
		c.Flow = Hardware
	case s.XONXOFF:
		c.Flow = Software
	}
	return c, nil
}

// Lines returns the lines that are raised now; see Config.LinesChanged. It asks the device,
// in which a driver may block. The error is ErrAway, or the system's if it has no lines.
func (p *Port) Lines() (Line, error) {
	if p.fd < 0 {
		return 0, ErrAway
	}
	v, err := p.cfg.lines(p.fd)
	return Line(v), err
}

// SetLines raises and drops DTR and RTS. A device that comes back gets what Config says.
func (p *Port) SetLines(raise, drop Line) error {
	switch {
	case (raise|drop)&^(DTR|RTS) != 0 || raise&drop != 0:
		return errors.New("serial: DTR and RTS can be raised or dropped")
	case p.fd < 0:
		return ErrAway
	}
	for _, l := range [...]Line{DTR, RTS} {
		if (raise|drop)&l == 0 {
			continue
		}
		if err := sys.SetSerialLine(p.fd, int(l), raise&l != 0); err != nil {
			return err
		}
	}
	return nil
}

// Break sends a break, which is longer than any character, for a time. What is written
// meanwhile is lost or comes after it, as the driver has it.
func (p *Port) Break(d time.Duration) error {
	if p.fd < 0 {
		return ErrAway
	}
	if err := p.cfg.setBreak(p.fd, true); err != nil {
		return err
	}
	p.broken = true
	p.breaks.Set(d)
	return nil
}

func (p *Port) breakOver() {
	if p.broken && p.fd >= 0 {
		_ = p.cfg.setBreak(p.fd, false) // a device that is gone sends none
	}
	p.broken = false
}

// Away reports whether the device is gone, and waited for.
func (p *Port) Away() bool { return p.below == nil && !p.over }

// look is called by the timer: in a port that is away to find the device, in one that is
// closing, or that waits for a reply, to see how far the sending is.
func (p *Port) look() {
	switch {
	case p.over:
	case p.closing:
		p.lookAtClosing()
	case p.below == nil:
		p.lookForDevice()
	case p.ended:
		p.lookForReply()
	}
}

// lookForDevice has a device that is away opened, unless that, or the closing of the line
// before it, is under way: then it sees to it that neither lasts for longer than Absence.
func (p *Port) lookForDevice() {
	left := p.until.Sub(p.loop.Now())
	switch {
	case p.closer == nil && p.opener == nil:
		o, err := openLine(p.loop, p.path, p.cfg, p.deviceOpened)
		if err != nil {
			p.end(err)
			return
		}
		p.opener = o
		p.timer.Set(max(lookForDevice, left))
	case left > 0:
		p.timer.Set(min(lookForDevice, left))
	default:
		if p.opener != nil {
			p.gone = errOpenStuck
		}
		p.end(&GoneError{Path: p.path, Wait: p.cfg.Absence, Err: p.gone})
	}
}

// deviceOpened takes what an opener of lookForDevice has opened; nil: the loop ends.
func (p *Port) deviceOpened(o *opening) {
	p.opener = nil
	if o == nil {
		return
	}
	p.timer.Stop()
	err := o.err
	hungUp := err == nil && p.cfg.Carrier && o.was.SameDevice(p.was)
	switch {
	case hungUp:
		was := p.was // the device was there all the time, and is left as it was at first
		p.hold(o)
		p.was = was
	case err == nil:
		if err = p.attach(o); err == nil {
			_ = p.watchLines(o) // of a loop that ends, or for want of a descriptor
		}
	}
	switch {
	case hungUp:
		p.end(&GoneError{Path: p.path, Err: ErrCarrier})
	case err == nil:
		p.gone = nil
		p.tell(nil)
		if p.over || p.below == nil {
			return // in what was told
		}
		if p.ended {
			p.waitForReply()
		}
		p.feed.Writable()
	case p.loop.Now().Before(p.until):
		p.letGo(true, nil)
		p.timer.Set(min(lookForDevice, p.until.Sub(p.loop.Now())))
	default:
		if !errors.Is(err, syscall.ENOENT) {
			p.gone = err
		}
		p.end(&GoneError{Path: p.path, Wait: p.cfg.Absence, Err: p.gone})
	}
}

func (p *Port) tell(gone error) {
	if p.cfg.Changed != nil {
		p.cfg.Changed(gone)
	}
}

// waitForReply begins to wait for the device's silence.
func (p *Port) waitForReply() {
	p.came = false
	p.timer.Set(p.cfg.Reply)
}

func (p *Port) lookForReply() {
	n, err := sys.SerialUnsent(p.fd)
	if p.came || p.below.Buffered() > 0 || n > 0 || err != nil {
		p.waitForReply() // with err the device is gone: ConnectionLost follows
		return
	}
	p.feed.End(nil)
}

// lookAtClosing closes the line once all is sent, or if nothing is being sent.
func (p *Port) lookAtClosing() {
	n, err := sys.SerialUnsent(p.fd)
	if err != nil {
		p.end(&GoneError{Path: p.path, Err: err}) // with what it had not sent
		return
	}
	if p.below != nil {
		n += p.below.Buffered()
	}
	switch now := p.loop.Now(); {
	case n == 0 && p.below == nil:
		p.end(nil)
		return
	case n != p.unsent:
		p.unsent, p.until = n, now.Add(p.cfg.CloseWait)
	case now.After(p.until):
		p.end(ErrStopped)
		return
	}
	p.timer.Set(lookAtUnsent)
}

// end ends the port. The device's transport is gone, or is of no use any more.
func (p *Port) end(reason error) {
	if p.over {
		return
	}
	p.over, p.reason = true, reason
	p.drop = !p.closing || reason != nil || p.below != nil
	p.timer.Stop()
	if p.opener != nil {
		p.opener.giveUp()
		p.opener = nil
	}
	if p.below != nil {
		p.below.Abort() // our own descriptor is to be the last: ConnectionLost goes on
	}
	if p.below == nil || p.opening {
		p.finish()
	}
}

// finish closes the line and tells the transport above.
func (p *Port) finish() {
	p.letGo(p.drop, func(err error) {
		if p.reason == nil {
			p.reason = err
		}
		if p.feed != nil {
			p.feed.Closed(p.reason)
		}
		if p.closed != nil {
			p.closed()
		}
	})
}

// Write implements weir.Carrier.
func (p *Port) Write(bufs [][]byte) (int, error) {
	if p.below == nil || p.blocked {
		return 0, nil
	}
	return p.below.Writev(bufs)
}

// CanCloseWrite implements weir.Carrier.
func (p *Port) CanCloseWrite() bool { return p.cfg.Reply > 0 }

// CloseWrite implements weir.Carrier.
func (p *Port) CloseWrite() error {
	p.ended = true
	if p.below != nil {
		p.waitForReply()
	}
	return nil
}

// PauseReading implements weir.Carrier.
func (p *Port) PauseReading() {
	p.paused = true
	if p.below != nil {
		p.below.PauseReading()
	}
}

// ResumeReading implements weir.Carrier.
func (p *Port) ResumeReading() {
	p.paused = false
	if p.below != nil {
		p.below.ResumeReading()
	}
}

// Close implements weir.Carrier.
func (p *Port) Close(abort bool) {
	switch {
	case p.over:
	case abort || p.below == nil && !p.closing:
		p.end(nil)
	case !p.closing:
		p.closing, p.unsent = true, -1
		_ = p.below.Close() // it returns nil on its own loop
		p.lookAtClosing()
	}
}

// LocalAddr names the device; its other end has no name of its own.
func (p *Port) LocalAddr() net.Addr { return &weir.FileAddr{Net: "serial", Name: p.path} }

// RemoteAddr is LocalAddr.
func (p *Port) RemoteAddr() net.Addr { return p.LocalAddr() }

// device is a Port as the protocol of the device's transport.
type device Port

// ConnectionMade implements weir.Protocol.
func (d *device) ConnectionMade(t weir.Transport) {
	d.blocked = false
	if d.paused {
		t.PauseReading()
	}
}

// DataReceived implements weir.Protocol.
func (d *device) DataReceived(b []byte) (int, error) {
	d.came = true
	d.feed.Deliver(b)
	return len(b), nil
}

// PauseWriting implements weir.WritePauser.
func (d *device) PauseWriting() { d.blocked = true }

// ResumeWriting implements weir.WritePauser.
func (d *device) ResumeWriting() {
	d.blocked = false
	d.feed.Writable()
}

// ConnectionLost implements weir.Protocol: the device is gone, if we did not close it.
func (d *device) ConnectionLost(err error) {
	p := (*Port)(d)
	p.below = nil
	if p.over {
		if !p.opening {
			p.finish()
		}
		return
	}
	switch {
	case errors.Is(err, weir.ErrLoopClosed):
		p.end(err)
	case p.closing && err != nil:
		p.end(err)
	case p.closing:
		p.lookAtClosing() // what the kernel has is still being sent
	case !vanished(err):
		p.end(err)
	case p.cfg.Absence == 0:
		p.end(&GoneError{Path: p.path, Err: err})
	default:
		p.letGo(true, nil)
		p.gone, p.until = err, p.loop.Now().Add(p.cfg.Absence)
		p.timer.Set(lookForDevice)
		p.tell(&GoneError{Path: p.path, Err: err})
	}
}

// vanished reports whether a device's transport that ended with err means that the device
// is gone: a hang-up reads as an end, and fails to be written to.
func vanished(err error) bool {
	return err == nil || errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.ENXIO) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, os.ErrClosed)
}
