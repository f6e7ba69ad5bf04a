package sim

import (
	"errors"
	"time"

	"github.com/weir-io/weir"
)

// errEvicted is why tenants are closed here.
var errEvicted = errors.New("evicted")

// house is a loop's tenants in a seed, opened and closed at random.
type house struct {
	s       *seedRun
	l       *weir.Loop
	tenants []*weir.Tenant
	all     []*weir.Tenant // the closed ones too
	lives   map[*talker]*weir.Tenant
	due     []*weir.Tenant // closed in the turn in progress
	hooks   int            // functions of OnClose that are to be called
}

// open makes a tenant, perhaps inside another, perhaps with a share and limits.
func (h *house) open() {
	r := h.s.r
	t := h.l.NewTenant("one")
	if n := len(h.tenants); n > 0 && r.IntN(2) == 0 {
		t = h.tenants[r.IntN(n)].NewTenant("inner")
	}
	if r.IntN(3) == 0 {
		if err := t.SetShare(1 + r.IntN(5)); err != nil {
			h.s.bad("SetShare: %v", err)
		}
	}
	if r.IntN(3) == 0 {
		_ = t.SetLimits(weir.TenantLimits{Buffered: 1 + r.IntN(200_000), Connections: r.IntN(6)})
	}
	h.hooks++
	t.OnClose(func(err error) {
		h.hooks--
		if !errors.Is(err, errEvicted) {
			h.s.bad("OnClose is told of %v", err)
		}
	})
	t.After(time.Duration(r.IntN(int(time.Hour))), func() { h.ran(t) })
	for range r.IntN(3) { // work, for a while
		left := r.IntN(300)
		var again func()
		again = func() {
			if h.ran(t); left > 0 {
				left--
				t.Soon(again)
			}
		}
		t.Soon(again)
	}
	h.tenants, h.all = append(h.tenants, t), append(h.all, t)
}

func (h *house) ran(t *weir.Tenant) {
	if t.Closed() != nil {
		h.s.bad("a callback of a closed tenant ran")
	}
}

// some is a tenant, or nil.
func (h *house) some() *weir.Tenant {
	if n := len(h.tenants); n > 0 && h.s.r.IntN(5) > 0 {
		return h.tenants[h.s.r.IntN(n)]
	}
	return nil
}

// close ends a tenant, from a callback.
func (h *house) close(t *weir.Tenant) {
	t.Close(errEvicted)
	open := h.tenants[:0]
	for _, u := range h.tenants {
		if u.Closed() == nil {
			open = append(open, u)
		} else {
			h.due = append(h.due, u)
		}
	}
	h.tenants = open
}

// step looks, after each turn, whether every loss was told in the turn of Close.
func (h *house) step() {
	for _, t := range h.due {
		for p, u := range h.lives { // any order: nothing is done with it
			if u == t && p.t != nil && !p.lost {
				h.s.bad("a connection of a closed tenant was not told in that turn")
			}
			if u == t && p.lost && p.reason == nil && !p.quit && !p.eof {
				h.s.bad("a connection of a closed tenant ended clean")
			}
		}
	}
	h.due = h.due[:0]
}

// come opens and closes tenants for some time.
func (h *house) come() {
	r := h.s.r
	for range 1 + r.IntN(4) {
		h.open()
	}
	for range r.IntN(6) {
		h.l.After(time.Duration(r.Int64N(int64(2*time.Second))), func() {
			if n := len(h.tenants); n > 0 && r.IntN(2) == 0 {
				h.close(h.tenants[r.IntN(n)])
			} else {
				h.open()
			}
		})
	}
}

// rest closes what is open and checks that nothing is counted any more.
func (h *house) rest() {
	for len(h.tenants) > 0 {
		h.close(h.tenants[0])
	}
}

func (h *house) finish() {
	if h.hooks != 0 {
		h.s.bad("%d functions of OnClose were not called, or twice", h.hooks)
	}
	for _, t := range h.all {
		if u := t.Stats(); u.Connections != 0 || u.Buffered != 0 {
			h.s.bad("a closed tenant counts %d connections and %d bytes (G6)", u.Connections, u.Buffered)
		}
	}
}

// playTenants: connections belong to tenants that come and go, with shares and budgets.
// Their bytes arrive as others' do, each loss is told once and in the turn of Close, and
// nothing is left of a closed tenant.
func playTenants(s *seedRun) {
	houses := map[*weir.Loop]*house{}
	for _, l := range []*weir.Loop{s.server, s.client} {
		h := &house{s: s, l: l, lives: map[*talker]*weir.Tenant{}}
		houses[l] = h
		s.sim.OnStep(h.step)
		h.come()
	}
	server, client := houses[s.server], houses[s.client]
	mk := func(h *house) *talker {
		p := s.talker()
		p.size = s.r.IntN(1 << s.r.IntN(19))
		p.lazy, p.slow = s.r.IntN(4), s.r.IntN(6)
		p.end = endNot + s.r.IntN(ends)
		p.onMade = func(p *talker) {
			if h.lives[p] = weir.TenantOf(p.t); s.r.IntN(3) > 0 {
				return
			}
			t := h.some()
			if t == nil {
				return
			}
			var full *weir.BudgetError
			if err := t.Adopt(p.t); err == nil {
				h.lives[p] = t
			} else if !errors.As(err, &full) && !errors.Is(err, weir.ErrClosed) {
				s.bad("Adopt: %v", err)
			}
		}
		return p
	}
	s.serve(func() *talker { return mk(server) })
	for range 1 + s.r.IntN(8) {
		s.client.After(time.Duration(s.r.Int64N(int64(2*time.Second))), func() {
			p := mk(client)
			t := client.some()
			s.client.Connect("tcp", "server:7000", s.v.Protocol(p.protocol()), weir.WithTenant(t))
		})
	}
	s.client.After(4*time.Hour, client.rest)
	s.server.After(4*time.Hour, server.rest)
	s.finish = func() {
		server.finish()
		client.finish()
	}
}
