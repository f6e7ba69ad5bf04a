package contract

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// TestVanishedYoung: a peer that vanishes before its connection is asked for keep-alive probes
// is noticed as late as any other (R79).
func TestVanishedYoung(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	server, here := s.Host("server"), s.Host("here")
	if _, err := server.Loop().Listen("tcp", ":7", func(weir.Transport) weir.Protocol { return weir.NopProtocol{} }); err != nil {
		t.Fatal(err)
	}
	var why error
	var cut, lost time.Duration
	here.Loop().Connect("tcp", server.Addr(7), &madeAndLost{
		made: func(tr weir.Transport) {
			tr.Loop().After(500*time.Millisecond, func() { // all that was sent has arrived
				cut = s.Now()
				s.Partition(server, here)
			})
		},
		lost: func(err error) { lost, why = s.Now(), err },
	}, weir.WithKeepAlive(2*time.Second))
	s.Until("the loss", func() bool { return why != nil })
	if took := lost - cut; !errors.Is(why, syscall.ETIMEDOUT) || took < 20*time.Second || took > 22*time.Second {
		t.Errorf("lost after %v with %v", took, why)
	}
}
