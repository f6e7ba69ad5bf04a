package main

import (
	"github.com/weir-io/weir"

	"github.com/weir-io/weir/bench/internal/side"
)

// half is one side of a relayed session. What it receives goes to the other.
type half struct {
	t, other weir.Transport
	copying  bool
	dial     func(*half)
}

// relay makes the factory of a relay to cfg.Target.
func relay(cfg side.Config) weir.Factory {
	return func(t weir.Transport) weir.Protocol {
		return &half{t: t, copying: cfg.Copy, dial: func(a *half) {
			t.Loop().Connect("tcp", cfg.Target, &half{other: t, copying: cfg.Copy, dial: nil})
		}}
	}
}

func (h *half) ConnectionMade(t weir.Transport) {
	h.t = t
	if h.dial != nil {
		t.PauseReading()
		h.dial(h)
		return
	}
	a := h.other.Protocol().(*half)
	a.other = t
	if !h.copying {
		splice(t, h.other)
		splice(h.other, t)
	}
	h.other.ResumeReading()
}

func splice(from, to weir.Transport) {
	s, ok := weir.As[weir.Splicer](from)
	if !ok {
		from.Abort()
		return
	}
	if err := s.SpliceTo(to, func(int64, error) {}); err != nil {
		from.Abort()
	}
}

func (h *half) ConnectFailed(*weir.ConnectError) { h.other.Abort() }

func (h *half) DataReceived(p []byte) (int, error) { return h.other.Write(p) }

// EOFReceived ends the other side's direction and keeps this one's.
func (h *half) EOFReceived(int) (bool, error) {
	if h.other != nil {
		return true, h.other.WriteEOF()
	}
	return true, nil
}

func (h *half) PauseWriting() { h.other.PauseReading() }

func (h *half) ResumeWriting() { h.other.ResumeReading() }

func (h *half) ConnectionLost(err error) {
	if h.other == nil {
		return
	}
	if err != nil {
		h.other.Abort()
	} else {
		h.other.Close()
	}
}
