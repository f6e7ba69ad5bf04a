package process

import (
	"errors"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/internal/race"
	"github.com/weir-io/weir/task"
)

// told counts how often a connection is told of its end, in which turn, and why.
type told struct {
	weir.NopProtocol
	turn   *int
	lost   int
	in     int
	reason error
}

func (p *told) ConnectionLost(err error) { p.lost, p.in, p.reason = p.lost+1, *p.turn, err }

// TestTenantOfEverything: one call ends a tenant with 10,000 connections, as many timers,
// 1,000 tasks and 100 children. Each is told once, in that turn, and nothing is left after
// the turns that docs/limits.md names (R70, G6).
func TestTenantOfEverything(t *testing.T) {
	first := true
	onBackends(t, func(r *rig) {
		conns, tasks, children := 1000, 100, 10
		if first && !race.Enabled && !testing.Short() {
			conns, tasks, children = 10_000, 1000, 100
		}
		first = false
		bankrupt := errors.New("bankrupt")
		tn := r.l.NewTenant("all")
		turn := 0
		step := func(wait time.Duration) {
			r.t.Helper()
			turn++
			if err := r.l.Turn(wait); err != nil {
				r.t.Fatal(err)
			}
		}

		all := make([]*told, 0, conns)
		one := func(weir.Transport) weir.Protocol {
			all = append(all, &told{turn: &turn})
			return all[len(all)-1]
		}
		for len(all) < conns {
			if _, _, err := r.l.SocketPair(one, one, weir.WithTenant(tn)); err != nil {
				r.t.Fatal(err)
			}
			if len(all)%500 == 0 {
				step(0)
			}
		}
		for range conns {
			tn.After(time.Hour, func() { r.t.Error("a timer fired") })
		}
		began, cleaned := 0, 0
		scope := task.New(future.On(tn))
		tn.OnClose(func(err error) {
			scope.Cancel(err)
			if err := scope.Close(); err != nil {
				r.t.Error(err)
			}
		})
		for range tasks {
			scope.Go("waits", func(tk *task.Task) error {
				began++
				err := tk.Sleep(time.Hour)
				cleaned++
				return err
			})
		}
		running, exits := 0, 0
		for range children {
			c := sh("exec sleep 1000", nil)
			c.Tenant = tn
			Start(r.s, r.e, c).OnDone(func(p *Process, err error) {
				if running++; err != nil {
					r.t.Error(err)
					return
				}
				p.Exited().OnDone(func(_ Exit, err error) {
					if exits++; !errors.Is(err, bankrupt) {
						r.t.Errorf("a child ended with %v", err)
					}
				})
			})
		}
		r.until("all of it", func() bool { return running == children && began == tasks })
		if n := tn.Stats().Connections; n != conns {
			r.t.Errorf("the tenant counts %d connections, want %d", n, conns)
		}

		closed := 0
		r.l.Soon(func() {
			tn.Close(bankrupt)
			closed = turn
		})
		at := time.Now()
		step(0)
		took := time.Since(at)
		bad := 0
		for _, p := range all {
			if p.lost != 1 || p.in != closed || !errors.Is(p.reason, bankrupt) {
				bad++
			}
		}
		if bad > 0 || cleaned != tasks {
			r.t.Errorf("in the turn of Close %d of %d connections were not told once and why; %d of %d tasks have ended", bad, conns, cleaned, tasks)
		}
		most := closed + 4
		if r.l.Backend().Name == "uring" {
			most += conns / 20
		}
		for turn < most && r.l.Connections() > 0 {
			step(time.Millisecond)
		}
		r.t.Logf("told of %d connections in %v; all were closed %d turns later", conns, took, turn-closed)
		if n := r.l.Connections(); n > 0 {
			r.t.Errorf("%d connections are left %d turns after Close", n, most-closed)
		}
		r.until("the children's ends", func() bool { return exits == children })
		noChildren(r.t)
	})
}
