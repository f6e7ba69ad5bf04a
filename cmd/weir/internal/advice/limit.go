package advice

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/ws"
	"github.com/weir-io/weir/utp"
)

// whyLimit says which layer's time limit ended a connection, which of its
// limits, and after how long; "" for other errors.
func whyLimit(err error) string {
	var (
		idle  *layer.IdleError
		pong  *ws.PongError
		stall *weir.StallError
		over  *weir.BudgetError
	)
	switch {
	case errors.As(err, &stall):
		return fmt.Sprintf("accepted nothing of what waits for it for %v (--write-stall)", stall.After)
	case errors.As(err, &over) && over.Tenant == "":
		return "reset, since memory is short and much waited for it (--memory)"
	case errors.As(err, &idle):
		return whyIdle(idle)
	case errors.As(err, &pong):
		return fmt.Sprintf("ws: silent, and no pong within %v of the ping", pong.After)
	case errors.Is(err, layer.ErrTimeout):
		if word := layerOf(err); word != "" {
			return "timed out in " + word
		}
		return "timed out"
	}
	return ""
}

func whyIdle(e *layer.IdleError) string {
	switch e.What {
	case layer.WriteStalled:
		return fmt.Sprintf("idle: accepted nothing of what waits for it for %v (stall)", e.After)
	case layer.TooSlow:
		return fmt.Sprintf("idle: sent less than min-rate, over %v", e.After)
	case layer.NothingPassed:
	}
	return fmt.Sprintf("idle: nothing passed, either way, for %v", e.After)
}

// Crowded explains that a listener at its bounds has refused connections, or
// makes them wait.
func Crowded(err *weir.AdmissionError) *Failure {
	what, did := "refused", "refused"
	if err.Waits {
		what, did = "waiting", "lets wait"
	}
	f := &Failure{Facts: []any{"listening", err.Addr.String(), what, err.Count, "reason", err.Err.Error()}}
	if err.Peer.IsValid() {
		f.Facts = append(f.Facts, "peer", err.Peer.String())
	}
	if errors.Is(err.Err, utp.ErrUnconfirmed) {
		f.Problem = fmt.Sprintf("%s gave up %s whose peers had not shown that they are where they say", err.Addr, Connections(err.Count))
		f.Next = "Many of them are a flood with forged senders; connections that are established go on."
		return f
	}
	var budget *weir.BudgetError
	if errors.As(err.Err, &budget) {
		f.Problem = fmt.Sprintf("%s %s %s: ", err.Addr, did, Connections(err.Count))
		f.Facts = append(f.Facts, "limit", budget.Limit)
		if budget.What == "connections" {
			f.Problem += fmt.Sprintf("there are %d on all listeners, which is the limit", budget.Used)
			f.Next = "To change it: --connections, or --memory, which it follows from."
			return f
		}
		f.Problem += fmt.Sprintf("memory is short, with %d of %d bytes used for what waits to be read or sent", budget.Used, budget.Limit)
		f.Next = "To change it: --memory."
		return f
	}
	var limit *layer.LimitError
	var ofUTP *utp.LimitError
	if errors.As(err.Err, &ofUTP) {
		limit = &layer.LimitError{Limit: ofUTP.Limit, Addr: ofUTP.Addr}
	} else if !errors.As(err.Err, &limit) {
		f.Problem = err.Error()
		return f
	}
	f.Problem = err.Addr.String() + " " + did + " " + Connections(err.Count) + ": "
	switch {
	case limit.Free > 0:
		f.Problem += fmt.Sprintf("%v has %d, and the last %d places are kept for others", peerName(limit.Addr), limit.Limit, limit.Free)
		f.Next = "If that is a proxy through which everything comes, add ,per-address=none where weir listens."
	case limit.Addr.IsValid():
		f.Problem += fmt.Sprintf("%v has %d, which is the limit for one address", peerName(limit.Addr), limit.Limit)
		f.Next = "To change it: per-address= where weir listens."
	case ofUTP != nil:
		f.Problem += fmt.Sprintf("there are %d, which is the bound", limit.Limit)
		f.Next = "To change it: connections= where weir listens."
	default:
		f.Problem += fmt.Sprintf("there are %d, which is the limit", limit.Limit)
		f.Next = "It follows from the limit of open files (ulimit -n); connections= where weir listens changes it."
	}
	f.Facts = append(f.Facts, "limit", limit.Limit)
	return f
}

// peerName writes a single address as an address, and others as a network.
func peerName(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// layerOf is the word of the layer that an error comes from, "" if it comes from none.
func layerOf(err error) string {
	var e *layer.Error
	if errors.As(err, &e) {
		return e.Layer
	}
	return ""
}

// Reason is why err happened, as fields of JSON: the text, and the layer that it came from.
func Reason(err error) []any {
	fields := []any{"reason", Why(err)}
	if word := layerOf(err); word != "" {
		fields = append(fields, "layer", word)
	}
	return fields
}

// Connections is "n connections", in words.
func Connections(n int) string { return Count(int64(n), "connection") }

// Count is a number of things whose plural ends in s, in words.
func Count(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// Pressed explains that memory is short: what weir does about it, and how often it did since
// last.
func Pressed(s, last weir.BudgetStats, limit int) *Failure {
	did := "connections that keep more than their part are paused"
	switch s.Stage {
	case weir.BudgetRefusing:
		did += ", and new ones are refused"
	case weir.BudgetResetting:
		did += ", new ones are refused, and the largest are reset"
	case weir.BudgetFree:
		did = "it is no longer"
	case weir.BudgetPausing:
	}
	paused, refused, reset := s.Paused-last.Paused, s.Refused-last.Refused, s.Reset-last.Reset
	return &Failure{
		Kind:    "memory",
		Problem: fmt.Sprintf("memory is short: %s; since the last report: %s paused, %d refused, %d reset", did, Count(int64(paused), "connection"), refused, reset),
		Next:    fmt.Sprintf("%d of %d bytes are used for what waits to be read or sent (--memory).", s.Buffered, limit),
		Facts: []any{
			"stage", s.Stage.String(), "buffered", s.Buffered, "limit", limit, "connections", s.Connections,
			"paused", paused, "refused", refused, "reset", reset,
		},
	}
}
