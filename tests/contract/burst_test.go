package contract

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"github.com/weir-io/weir"
)

// TestBurst: datagrams that come together are answered together, and whatever one of their
// callbacks does, the others are handed over and all answers arrive, in order (R51).
func TestBurst(t *testing.T) {
	const n, at = 40, 20
	for _, sizes := range []string{"equal", "different"} {
		for _, does := range []string{"answers", "panics", "pauses", "closes", "aborts"} {
			t.Run(sizes+"/"+does, func(t *testing.T) {
				onEveryLoop(t, func(t *testing.T, mk loopMaker) {
					var panics []error
					l := mk(weir.WithErrorHandler(func(err error) { panics = append(panics, err) }))
					a, b := &packets{}, &packets{}
					ea := endpoint(t, l, "udp4", a)
					eb := endpoint(t, l, "udp4", b)
					errs := 0
					b.on = func(p []byte, from weir.PacketAddr) {
						if err := eb.SendTo(p, from); err != nil {
							errs++
						}
						if len(b.got) != at {
							return
						}
						switch does {
						case "panics":
							panic("of a datagram")
						case "pauses":
							eb.PauseReading()
							l.Soon(eb.ResumeReading)
						case "closes":
							_ = eb.Close()
						case "aborts":
							eb.Abort()
						}
					}
					want := n
					if does == "closes" || does == "aborts" {
						want = at
					}
					l.Soon(func() {
						for i := range n {
							size := 9
							if sizes == "different" {
								size += i
							}
							if err := ea.SendTo(fmt.Appendf(nil, "%0*d", size, i), eb.Local()); err != nil {
								t.Errorf("datagram %d: %v", i, err)
							}
						}
					})
					turns(t, l, "answers", func() bool { return len(a.got) == want })
					for i, p := range a.got {
						if k, err := strconv.Atoi(string(p)); err != nil || k != i {
							t.Fatalf("answer %d is %q", i, p)
						}
					}
					if errs > 0 || len(panics) > 0 != (does == "panics") || len(b.got) != want || len(b.failed) > 0 {
						t.Errorf("%d errors, %v; %d handed over, want %d; %v", errs, panics, len(b.got), want, b.failed)
					}
				})
			})
		}
	}
}

// TestBurstFailures: of answers that wait for the end of a burst, a PacketFailer is told
// what the system says against each, and the others arrive (R51).
func TestBurstFailures(t *testing.T) {
	onEveryLoop(t, func(t *testing.T, mk loopMaker) {
		l := mk()
		a, b := &packets{}, &packets{}
		ea := endpoint(t, l, "udp4", a)
		eb := endpoint(t, l, "udp4", b)
		const n = 10
		told := 0
		b.on = func(p []byte, from weir.PacketAddr) {
			if len(b.got)%2 == 0 { // one more from an address that is not this machine's
				info := weir.PacketInfo{Local: netip.MustParseAddr("192.0.2.1")}
				switch err := eb.SendInfo(p, from, &info); {
				case errors.Is(err, errors.ErrUnsupported):
					t.Skip(err)
				case err != nil:
					told++ // the last one of a burst
				}
			}
			if err := eb.SendTo(p, from); err != nil {
				t.Error(err)
			}
		}
		l.Soon(func() {
			for i := range n {
				if err := ea.SendTo([]byte{byte(i)}, eb.Local()); err != nil {
					t.Error(err)
				}
			}
		})
		turns(t, l, "answers", func() bool { return len(a.got) == n && len(b.failed)+told == n/2 })
		got := slices.Concat(a.got...)
		for i, k := range got {
			if int(k) != i {
				t.Fatalf("answers %d", got)
			}
		}
		for _, to := range b.about {
			if to != ea.Local() {
				t.Errorf("a failure about %v, want %v", to, ea.Local())
			}
		}
	})
}
