package endpoint

import (
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/weirtest"
)

// talker is one end of a connection.
type talker struct {
	t       weir.Transport
	got     int
	eof     bool
	lost    bool
	err     error
	eofAt   time.Duration
	now     func() time.Duration
	onBytes func()
}

func (p *talker) ConnectionMade(t weir.Transport) { p.t = t }
func (p *talker) DataReceived(b []byte) (int, error) {
	p.got += len(b)
	if p.onBytes != nil {
		p.onBytes()
	}
	return len(b), nil
}

func (p *talker) EOFReceived(int) (bool, error) {
	p.eof, p.eofAt = true, p.now()
	return true, nil
}
func (p *talker) ConnectionLost(err error) { p.lost, p.err = true, err }

// awaited connects a client under awaitsReply to a server.
func awaited(t *testing.T, wait time.Duration) (s *weirtest.Sim, client, server *talker) {
	t.Helper()
	s = weirtest.NewSim(t, 1)
	client, server = &talker{now: s.Now}, &talker{now: s.Now}
	a, b := s.Host("client"), s.Host("server")
	if _, err := b.Loop().Listen("tcp", ":80", func(weir.Transport) weir.Protocol { return server }); err != nil {
		t.Fatal(err)
	}
	a.Loop().Connect("tcp", b.Addr(80), layer.Client(client, awaitsReply("sctp", wait, nil)))
	s.Until("the connection", func() bool { return client.t != nil && server.t != nil })
	if !client.t.CanWriteEOF() {
		t.Fatal("CanWriteEOF is false")
	}
	return s, client, server
}

// TestAwaitsReply: the end of our input is not told to the peer, whose reply is awaited for
// as long as it goes on, and which ends the connection by itself or by its silence.
func TestAwaitsReply(t *testing.T) {
	s, client, server := awaited(t, 5*time.Second)
	server.onBytes = func() {
		for i := 1; i <= 3; i++ { // with less than 5 s between them, and 13.5 s in all
			server.t.Loop().After(time.Duration(i)*4500*time.Millisecond, func() { _, _ = server.t.Write([]byte("reply")) })
		}
	}
	_, _ = client.t.Write([]byte("question"))
	if err := client.t.WriteEOF(); err != nil {
		t.Fatal(err)
	}
	s.Until("the end", func() bool { return client.eof })
	if client.got != 3*len("reply") || server.eof {
		t.Errorf("%d bytes of the reply came; the server saw an end: %v", client.got, server.eof)
	}
	if d := client.eofAt; d < 18*time.Second || d > 19*time.Second {
		t.Errorf("ended after %v, want 5 s of silence after 13.5 s", d)
	}
	s.Until("the loss", func() bool { return client.lost })
	if client.err != nil {
		t.Errorf("lost with %v", client.err)
	}

	s, client, server = awaited(t, time.Hour)
	_ = client.t.WriteEOF()
	_, _ = server.t.Write([]byte("reply"))
	_ = server.t.Close()
	s.Until("the end", func() bool { return client.lost })
	if client.got != len("reply") || client.err != nil || s.Now() > time.Second {
		t.Errorf("%d bytes, %v, after %v; the server had ended", client.got, client.err, s.Now())
	}
}

// TestAwaitsSlowPeer: a peer that has not got everything, or whose reply we do not read, is
// not silent.
func TestAwaitsSlowPeer(t *testing.T) {
	s, client, server := awaited(t, time.Second)
	server.t.PauseReading()
	client.t.Loop().After(0, func() {
		_, _ = client.t.Write(make([]byte, 4<<20))
		_ = client.t.WriteEOF()
	})
	if err := s.RunFor(time.Minute); err != nil {
		t.Fatal(err)
	}
	if client.eof {
		t.Fatal("ended while the peer had not got everything")
	}
	server.t.ResumeReading()
	s.Until("the end", func() bool { return client.eof && server.got == 4<<20 })

	s, client, server = awaited(t, time.Second)
	_ = client.t.WriteEOF()
	client.t.PauseReading()
	_, _ = server.t.Write([]byte("reply"))
	if err := s.RunFor(time.Minute); err != nil {
		t.Fatal(err)
	}
	if client.eof {
		t.Fatal("ended while we did not read")
	}
	client.t.ResumeReading()
	s.Until("the end", func() bool { return client.eof && client.got == len("reply") })
}
