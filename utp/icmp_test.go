package utp_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/utp"
	"github.com/weir-io/weir/weirtest"
)

// icmpStates bring a client, whose peer then cannot be reached, into each state.
var icmpStates = map[string]func(s *weirtest.Sim, w *world, server, client *ear){
	"connecting": func(_ *weirtest.Sim, w *world, _, client *ear) { w.b.Dial(w.to, client) },
	"idle":       func(s *weirtest.Sim, w *world, server, client *ear) { bothConnect(s, w, server, client) },
	"sending": func(s *weirtest.Sim, w *world, server, client *ear) {
		bothConnect(s, w, server, client)
		client.t.Loop().Soon(func() { _, _ = client.t.Write([]byte("hello")) })
	},
	"ending": func(s *weirtest.Sim, w *world, server, client *ear) {
		bothConnect(s, w, server, client)
		s.HealAll()
		server.t.Loop().Soon(func() { _ = server.t.WriteEOF() })
		s.Until("the peer's end", func() bool { return client.ends == 1 })
		_ = s.RunFor(time.Second)
		s.Partition(s.Host("a"), s.Host("b"))
		client.t.Loop().Soon(func() { _ = client.t.Close() })
	},
}

func bothConnect(s *weirtest.Sim, w *world, server, client *ear) {
	w.b.Dial(w.to, client)
	s.HealAll()
	s.Until("both ends connected", func() bool { return client.made+server.made == 2 })
	_ = s.RunFor(time.Second)
	s.Partition(s.Host("a"), s.Host("b"))
}

// TestICMP: which message of the network ends a connection in each of its states, and
// when (docs/design/utp.md).
func TestICMP(t *testing.T) {
	const (
		stays   = "it goes on"
		fails   = "the connect fails at once"
		silence = "it is lost with the message after three timeouts"
		soon    = "a clean end, after three timeouts"
		clean   = "a clean end at once"
	)
	refusal := map[string]string{"connecting": fails, "idle": stays, "sending": silence, "ending": soon}
	refused := map[string]string{"connecting": fails, "idle": stays, "sending": silence, "ending": clean}
	never := map[string]string{"connecting": stays, "idle": stays, "sending": stays, "ending": stays}
	for errno, row := range map[syscall.Errno]map[string]string{
		syscall.ECONNREFUSED: refused, // port unreachable
		syscall.EHOSTUNREACH: refusal, // host unreachable, time exceeded, and others
		syscall.ENETUNREACH:  refusal,
		syscall.EHOSTDOWN:    refusal,
		syscall.ENOPROTOOPT:  refusal, // protocol unreachable
		syscall.EPROTO:       refusal, // parameter problem
		syscall.EACCES:       refusal, // prohibited by an administrator, over IPv6
		syscall.EOPNOTSUPP:   refusal, // source route failed
		syscall.EMSGSIZE:     never,   // fragmentation needed
		syscall.ENOBUFS:      never,
		syscall.ENOMEM:       never,
	} {
		for state, enter := range icmpStates {
			t.Run(fmt.Sprint(errno, ", ", state), func(t *testing.T) {
				s := weirtest.NewSim(t, 1, weirtest.WithFaults(weirtest.Faults{Latency: 10 * time.Millisecond}))
				w := newWorld(t, s, utp.Config{KeepAlive: -1})
				server, client := &ear{keepOpen: true}, &ear{keepOpen: true}
				w.listen(t, func(weir.Transport) weir.Protocol { return server })
				s.Partition(s.Host("a"), s.Host("b"))
				enter(s, w, server, client)
				_ = s.RunFor(100 * time.Millisecond)
				begin := s.Now()
				s.Host("b").Loop().Soon(func() { w.b.PacketFailed(errno, weir.PacketAddr{IP: w.to}) })
				_ = s.RunFor(10 * time.Millisecond)
				atOnce := client.over()
				if row[state] == stays {
					s.HealAll()
					_ = s.RunFor(4 * time.Second)
				}
				late := row[state] == silence || row[state] == soon
				if late {
					s.Until("the client lost", client.over)
				}
				took := s.Now() - begin
				switch row[state] {
				case fails:
					if !atOnce || !errors.Is(client.failed, errno) {
						t.Errorf("failed after %v with %v", took, client.failed)
					}
				case clean:
					if !atOnce || client.err != nil {
						t.Errorf("lost after %v with %v", took, client.err)
					}
				case silence:
					if atOnce || !errors.Is(client.err, errno) || took > 15*time.Second {
						t.Errorf("lost after %v with %v", took, client.err)
					}
				case soon:
					if atOnce || client.err != nil || took > 15*time.Second {
						t.Errorf("lost after %v with %v", took, client.err)
					}
				case stays:
					goesOn(t, s, state, server, client, atOnce)
				}
			})
		}
	}
}

// goesOn checks that a connection that is reached again was not ended.
func goesOn(t *testing.T, s *weirtest.Sim, state string, server, client *ear, atOnce bool) {
	t.Helper()
	switch {
	case atOnce, client.failed != nil, client.err != nil, client.made != 1:
		t.Fatalf("made %d, over at once: %v, failed %v, lost with %v", client.made, atOnce, client.failed, client.err)
	case state == "ending":
		if client.lost != 1 {
			t.Error("the end did not arrive")
		}
		return
	case state != "sending":
		client.t.Loop().Soon(func() { _, _ = client.t.Write([]byte("hello")) })
	}
	s.Until("bytes after it", func() bool { return string(server.got) == "hello" })
	if client.lost > 0 {
		t.Error("lost with", client.err)
	}
}
