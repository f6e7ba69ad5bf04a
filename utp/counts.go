package utp

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/weir-io/weir"
)

// reportEvery is how often a listener reports the connections that it refused.
const reportEvery = 10 * time.Second

// Counts is how often an endpoint has reached its bounds and has dropped what cannot
// be true, since it was made.
type Counts struct {
	Refused      int // connections beyond Config.Connections or Config.PerAddress, or that their tenant has no room for
	Forgotten    int // unconfirmed connections that gave way to newer ones: Config.HalfOpen
	Lingerers    int // closed connections that were forgotten before their time
	Unanswered   int // packets of no connection beyond the resets of a second
	Implausible  int // packets, resets among them, that acknowledge what is not in flight
	BeyondWindow int // packets for which a connection had no room, probes of its window among them
}

// Counts is what the endpoint has counted so far.
func (e *Endpoint) Counts() Counts { return e.counts }

// LimitError is why a listener refused a connection. The loop's error handler gets it
// in a *weir.AdmissionError, the first at once and further ones every 10 s.
type LimitError struct {
	Limit int
	Addr  netip.Prefix // whose connections they are; not valid if they are those of all
}

func (e *LimitError) Error() string {
	if e.Addr.IsValid() {
		return fmt.Sprintf("utp: %v has %d connections, which is the limit", e.Addr, e.Limit)
	}
	return fmt.Sprintf("utp: there are %d connections, which is the limit", e.Limit)
}

// ErrUnconfirmed is why a listener forgot a connection: Config.HalfOpen others waited
// as well for a packet that shows that their peers are where they say. It is reported as
// a LimitError is.
var ErrUnconfirmed = errors.New("utp: too many connections wait for their peers to confirm them, as in a flood of forged ones; the oldest gave way")

// refusals are the connections that a listener has refused and not yet reported.
type refusals struct {
	last  weir.AdmissionError
	timer *weir.Timer // runs for reportEvery after each report
}

// add counts one, and reports it unless there was a report recently.
func (r *refusals) add(ln *Listener, ip netip.Addr, err error) {
	if r.timer == nil {
		r.timer = ln.ep.loop.NewTimer(func() { r.report(ln) })
	}
	r.last.Peer, r.last.Err = ip, err
	r.last.Count++
	if !r.timer.Running() {
		r.report(ln)
	}
}

// report reports what has been counted since the last report, if anything.
func (r *refusals) report(ln *Listener) {
	if r.last.Count == 0 {
		return
	}
	e := r.last
	e.Addr = ln.Addr()
	r.last = weir.AdmissionError{}
	if !ln.closed {
		r.timer.Set(reportEvery)
	}
	ln.ep.loop.Report(&e)
}

// end reports what is left.
func (r *refusals) end(ln *Listener) {
	if r.timer != nil {
		r.timer.Stop()
		r.report(ln)
	}
}
