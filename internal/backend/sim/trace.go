package sim

import (
	"errors"
	"math/bits"
	"strconv"
	"syscall"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/splitmix"
)

// What says what an Event is.
type What uint8

// What can happen. Those of the wire can be held; Result too.
const (
	Arrival         What = iota + 1 // bytes, or the end, reach the other side
	Ack                             // the sender learns of it
	Reset                           // a reset reaches a socket
	Gone                            // a socket that is not TCP's learns that its peer was closed
	Syn                             // a wish to connect reaches the listener
	SynRetry                        // it is sent again
	SynAck                          // the listener's answer
	Establish                       // the connection reaches the listener's queue
	Refuse                          // a refusal reaches who connects
	NoRoute                         // there is no such host
	Retry                           // what was lost is sent again
	KeepAlive                       // a probe found no one
	Late                            // the last result of a canceled Op is due
	Window                          // a window opens again
	Mended                          // a partition ends
	Restarted                       // a host is back
	Result                          // an Op's result is handed out
	TurnOf                          // a loop gets a turn
	Dropped                         // a segment is lost
	Doomed                          // a connection meets its fate
	Weather                         // something was drawn for the whole world
	CancelCall                      // Cancel
	SubmitCall                      // Submit
	OpenCall                        // Open; X is the Handle
	AcceptCall                      // an Accept that had something to take
	ConnectCall                     // the beginning of a Connect
	ReadCall                        // a Read that had something to report
	WriteCall                       // a Write that had room
	HangupCall                      // a Hangup that was due
	ReadyCall                       // a Ready that was due
	ShutCall                        // Shut; X is the How
	NameCall                        // Name
	SetCall                         // SetOption
	GetCall                         // GetOption
	WaitCall                        // Wait
	DatagramArrival                 // a datagram reaches a host; Remote is its sender
	Unreachable                     // that a datagram did not arrive reaches its sender
	Room                            // a socket can send datagrams again
	RecvFromCall                    // a RecvFrom that had something to take
	SendToCall                      // a SendTo that had room
	StartCall                       // a program is started; X is its number
	SignalCall                      // a signal is sent to a program; Y is which
	ExitOf                          // a program can be reaped; Y is its code
	ForeignStep                     // a foreign loop runs one of its callbacks; X is its number
	whats
)

var whatNames = [whats]string{
	"", "arrival", "ack", "reset", "gone", "syn", "syn-retry", "syn-ack", "establish", "refuse", "no-route",
	"retry", "keep-alive", "late", "window", "mended", "restarted", "result", "turn", "dropped", "doomed",
	"weather", "cancel", "submit", "open", "accept", "connect", "read", "write", "hangup", "ready", "shut",
	"name", "set-option", "get-option", "wait",
	"datagram", "unreachable", "room", "recv-from", "send-to",
	"start", "signal", "exit", "foreign",
}

func (w What) String() string {
	if w < whats && w > 0 {
		return whatNames[w]
	}
	return "what" + strconv.Itoa(int(w))
}

// The What of each kind of event.
var kindWhats = [...]What{
	evArrive: Arrival, evAck: Ack, evReset: Reset, evGone: Gone, evSyn: Syn, evSynRetry: SynRetry,
	evSynAck: SynAck, evEstablish: Establish, evRefuse: Refuse, evNoRoute: NoRoute, evRetry: Retry,
	evKeepAlive: KeepAlive, evLate: Late, evWindow: Window, evHeal: Mended, evRestart: Restarted,
	evDatagram: DatagramArrival, evUnreachable: Unreachable, evRoom: Room, evProgram: ExitOf,
}

// The What of an attempt at an Op.
var attemptWhats = [...]What{
	backend.Read: ReadCall, backend.Write: WriteCall, backend.Accept: AcceptCall, backend.Connect: ConnectCall,
	backend.Hangup: HangupCall, backend.Ready: ReadyCall,
	backend.RecvFrom: RecvFromCall, backend.SendTo: SendToCall,
}

// trace is what happened, as a hash and, if somebody wants them, as lines.
type trace struct {
	hash uint64
	line []byte
}

func mix(h, x uint64) uint64 {
	return bits.RotateLeft64((h^x)*0x9fb21c651e98df25, 29) + splitmix.Gamma
}

// bytes folds p in.
func (t *trace) bytes(p []byte) {
	h := t.hash
	for len(p) >= 8 {
		h = mix(h, uint64(p[0])|uint64(p[1])<<8|uint64(p[2])<<16|uint64(p[3])<<24|
			uint64(p[4])<<32|uint64(p[5])<<40|uint64(p[6])<<48|uint64(p[7])<<56)
		p = p[8:]
	}
	last := uint64(len(p)) << 56
	for i, b := range p {
		last |= uint64(b) << (8 * i)
	}
	t.hash = mix(h, last)
}

// record writes an event down: whose it is, and two numbers.
func (w *World) record(what What, h *Host, id uint32, x, y int64) {
	who := uint64(what) << 56
	if h != nil {
		who |= uint64(h.index+1) << 32
	}
	t := mix(w.trace.hash, uint64(w.now))
	t = mix(t, who|uint64(id))
	t = mix(t, uint64(x))
	w.trace.hash = mix(t, uint64(y))
	if w.cfg.Trace == nil {
		return
	}
	b := appendTime(w.trace.line[:0], w.now)
	b = append(b, ' ')
	if h != nil {
		b = append(b, h.name...)
	} else {
		b = append(b, '-')
	}
	b = append(b, ' ')
	b = strconv.AppendUint(b, uint64(id), 10)
	b = append(b, ' ')
	b = append(b, whatNames[what]...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, x, 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, y, 10)
	b = append(b, '\n')
	w.trace.line = b
	if _, err := w.cfg.Trace.Write(b); err != nil && w.err == nil {
		w.err = err
	}
}

func appendTime(b []byte, now int64) []byte {
	b = strconv.AppendInt(b, now/int64(time.Second), 10)
	b = append(b, '.')
	frac := now % int64(time.Second)
	for unit := int64(time.Second) / 10; unit > 0; unit /= 10 {
		b = append(b, byte('0'+frac/unit%10))
	}
	return b
}

// errorNumber tells errors apart in the trace.
func errorNumber(err error) int64 {
	switch {
	case err == nil:
		return 0
	case err == backend.ErrAgain:
		return -1
	case err == backend.ErrCanceled:
		return -2
	}
	return number(err)
}

// number is apart because what errors.As fills in is allocated.
func number(err error) int64 {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return int64(errno)
	}
	return -3
}
