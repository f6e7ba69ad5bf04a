//go:build windows

package iocp

import (
	"math"
	"syscall"

	"golang.org/x/sys/windows"

	"github.com/weir-io/weir/internal/backend"
)

// What IOCTL_AFD_POLL takes and gives. It is not documented, but everything that waits for
// readiness on Windows stands on it: select, and the ports of libuv, mio and others.
const (
	ioctlPoll = 0x00012024

	pollReceive     = 0x001
	pollSend        = 0x004
	pollDisconnect  = 0x008 // the peer has ended its direction
	pollAbort       = 0x010 // the connection was reset
	pollClosed      = 0x020 // our socket was closed
	pollAccept      = 0x080
	pollConnectFail = 0x100
)

type pollInfo struct {
	timeout   int64
	handles   uint32
	exclusive uint32
	handle    windows.Handle
	events    uint32
	status    uint32
}

// startPoll begins a poll for events. It returns the slot, or the events if some hold.
func (b *Backend) startPoll(h *handle, kind backend.Kind, events uint32) (*slot, uint32, error) {
	if err := b.attach(h); err != nil {
		return nil, 0, err
	}
	sl := b.slots.take(h, kind, true)
	sl.aux.poll = pollInfo{timeout: math.MaxInt64, handles: 1, handle: h.s, events: events}
	b.stats.Calls++
	switch status := b.calls.startPoll(h.s, sl); {
	case status == statusPending, status == 0 && !b.skips:
		b.inFlight++
		return sl, 0, nil
	case status == 0:
		got := sl.aux.poll.events
		b.slots.drop(sl)
		return nil, got, nil
	default:
		b.slots.drop(sl)
		return nil, 0, asErrno(windows.NTStatus(status).Errno())
	}
}

// conditions are the events to poll for so that ev is known.
func conditions(ev backend.Events) uint32 {
	events := uint32(pollAbort | pollConnectFail | pollClosed)
	if ev&backend.Readable != 0 {
		events |= pollReceive | pollAccept | pollDisconnect
	}
	if ev&backend.Writable != 0 {
		events |= pollSend
	}
	return events
}

// holding is the reverse.
func holding(events uint32, asked backend.Events) backend.Events {
	var ev backend.Events
	if events&(pollReceive|pollAccept|pollDisconnect) != 0 {
		ev |= backend.Readable
	}
	if events&pollSend != 0 {
		ev |= backend.Writable
	}
	if events&(pollAbort|pollConnectFail|pollClosed) != 0 {
		ev |= backend.Readable | backend.Writable | backend.Failed // neither would wait
	}
	return ev & (asked | backend.Failed)
}

// serveReady reports what holds of a Ready Op, or has it waited for.
func (h *handle) serveReady(b *Backend, c *backend.Completion) bool {
	op := h.ready
	events := h.readyEvents
	h.readyEvents = 0
	if events == 0 {
		if h.readySlot != nil {
			return false
		}
		sl, got, err := b.startPoll(h, backend.Ready, conditions(op.Events))
		if err != nil {
			*c = backend.Completion{Op: op, Err: err}
			return true
		}
		h.readySlot = sl
		events = got
	}
	*c = backend.Completion{Op: op, N: int(holding(events, op.Events))}
	return c.N != 0
}

// serveHangup reports that both directions are over, or that the connection has failed, or
// has it waited for.
func (h *handle) serveHangup(b *Backend, c *backend.Completion) bool {
	op := h.hang
	*c = backend.Completion{Op: op}
	if h.hung {
		h.hung = false
		c.Err = h.hungErr
		return true
	}
	if h.peerEnded && h.shut {
		b.leave(h, &h.hangSlot)
		c.Err = h.pendingError()
		return true
	}
	for h.hangSlot == nil {
		events := uint32(pollAbort | pollConnectFail | pollClosed)
		if !h.peerEnded {
			events |= pollDisconnect
		}
		sl, got, err := b.startPoll(h, backend.Hangup, events)
		if err != nil {
			c.Err = err
			return true
		}
		h.hangSlot = sl
		if sl == nil && h.heard(b, got) {
			h.hung = false
			c.Err = h.hungErr
			return true
		}
	}
	return false
}

// heard takes the events of a Hangup's poll. It reports whether they end it.
func (h *handle) heard(_ *Backend, events uint32) bool {
	if events&pollDisconnect != 0 {
		h.peerEnded = true
	}
	switch {
	case events&(pollAbort|pollConnectFail) != 0:
		h.hungErr = h.pendingError()
		if h.hungErr == nil && events&pollAbort != 0 {
			h.hungErr = syscall.ECONNRESET
		}
	case h.peerEnded && h.shut:
		h.hungErr = h.pendingError()
	default:
		return false
	}
	h.hung = true
	return true
}

// pendingError is the socket's own, or nil.
func (h *handle) pendingError() error {
	v, err := windows.GetsockoptInt(h.s, windows.SOL_SOCKET, soError)
	if err != nil || v == 0 {
		return nil
	}
	return asErrno(syscall.Errno(v))
}
