package contract

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// traced is a protocol that records its callbacks. Bytes that arrive in pieces
// count as one: how a stream is split is chance on every backend.
type traced struct {
	name  string
	trace *strings.Builder
	t     weir.Transport
	data  string // used since the last line
	lost  bool

	made func(p *traced)
	got  func(p *traced, b []byte) (int, error)
	eof  func(p *traced, unused int) (bool, error)
}

func (p *traced) note(format string, args ...any) {
	if p.data != "" {
		data := p.data
		p.data = ""
		if len(data) > 40 {
			data = fmt.Sprintf("%d bytes", len(data))
		}
		fmt.Fprintf(p.trace, "%s data %s\n", p.name, data)
	}
	fmt.Fprintf(p.trace, p.name+" "+format+"\n", args...)
}

func (p *traced) ConnectionMade(t weir.Transport) {
	p.t = t
	p.note("made")
	if p.made != nil {
		p.made(p)
	}
}

func (p *traced) DataReceived(b []byte) (n int, err error) {
	if n = len(b); p.got != nil {
		n, err = p.got(p, b)
	}
	if 0 < n && n <= len(b) {
		p.data += string(b[:n])
	}
	return n, err
}

func (p *traced) EOFReceived(unused int) (bool, error) {
	p.note("end, %d unused", unused)
	if p.eof != nil {
		return p.eof(p, unused)
	}
	return false, nil
}

func (p *traced) ConnectionLost(err error) {
	p.note("lost: %s", reason(err))
	p.lost = true
}

func (p *traced) ConnectFailed(err *weir.ConnectError) {
	p.note("failed in %s: %s", err.Stage, reason(err))
	p.lost = true
}

// reason is the kind of an error, without addresses.
func reason(err error) string {
	var (
		panicked *weir.PanicError
		unused   *weir.UnusedError
		used     *weir.UsedError
		tail     *weir.TailError
	)
	switch {
	case err == nil:
		return "nil"
	case errors.Is(err, weir.ErrAborted):
		return "aborted"
	case errors.As(err, &panicked):
		return fmt.Sprintf("panic in %s: %v", panicked.Where, panicked.Value)
	case errors.As(err, &unused):
		return fmt.Sprintf("%d bytes unused", unused.Unused)
	case errors.As(err, &used):
		return "used out of range"
	case errors.As(err, &tail):
		return fmt.Sprintf("tail over %d bytes", tail.Limit)
	case errors.Is(err, syscall.ECONNRESET):
		return "reset"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	}
	return err.Error()
}

// atOnce answers when all of a request is there.
func atOnce(request string, answer func(p *traced)) func(*traced, []byte) (int, error) {
	return func(p *traced, b []byte) (int, error) {
		if len(b) < len(request) {
			return 0, nil
		}
		answer(p)
		return len(request), nil
	}
}

func say(text string) func(*traced) {
	return func(p *traced) { _, _ = p.t.Write([]byte(text)) }
}

// scenarios are programs with the callbacks that each end gets, on any backend
// (behaviour 95).
var scenarios = []struct {
	name           string
	server, client traced
	opts           []weir.StreamOption
	want           string
}{
	{
		name:   "echo and close",
		server: traced{got: func(p *traced, b []byte) (int, error) { return p.t.Write(b) }},
		client: traced{made: say("hello"), got: atOnce("hello", func(p *traced) { _ = p.t.Close() })},
		want: `
client made
client data hello
client lost: nil
server made
server data hello
server end, 0 unused
server lost: nil`,
	},
	{
		name: "a request, its end, and the reply",
		server: traced{eof: func(p *traced, _ int) (bool, error) {
			_, _ = p.t.Write([]byte(strings.Repeat("reply ", 100_000)))
			_ = p.t.WriteEOF()
			return true, nil
		}},
		client: traced{made: func(p *traced) { say("request")(p); _ = p.t.WriteEOF() }},
		want: `
client made
client data 600000 bytes
client end, 0 unused
client lost: nil
server made
server data request
server end, 0 unused
server lost: nil`,
	},
	{
		name:   "greeting and close in ConnectionMade",
		server: traced{made: func(p *traced) { say("220 hello")(p); _ = p.t.Close() }},
		want: `
client made
client data 220 hello
client end, 0 unused
client lost: nil
server made
server lost: nil`,
	},
	{
		name:   "abort after the reply",
		server: traced{got: atOnce("?", say("!"))},
		client: traced{made: say("?"), got: atOnce("!", func(p *traced) { p.t.Abort() })},
		want: `
client made
client data !
client lost: aborted
server made
server data ?
server lost: reset`,
	},
	{
		name: "lines, the last one unfinished",
		server: traced{got: func(p *traced, b []byte) (int, error) {
			i := strings.IndexByte(string(b), '\n')
			if i >= 0 {
				p.note("line %s", b[:i])
			}
			return i + 1, nil
		}},
		client: traced{made: func(p *traced) { say("one\ntwo\n\nthree")(p); _ = p.t.WriteEOF() }},
		want: `
client made
client end, 0 unused
client lost: nil
server made
server line one
server data one\n
server line two
server data two\n
server line 
server data \n
server end, 5 unused
server lost: 5 bytes unused`,
	},
	{
		name:   "panic",
		server: traced{got: func(*traced, []byte) (int, error) { panic("boom") }},
		client: traced{made: say("x")},
		want: `
client made
client lost: reset
server made
server lost: panic in DataReceived: boom`,
	},
	{
		name:   "out of range",
		server: traced{got: func(_ *traced, b []byte) (int, error) { return len(b) + 1, nil }},
		client: traced{made: say("x")},
		want: `
client made
client lost: reset
server made
server lost: used out of range`,
	},
	{
		name:   "a tail too long",
		server: traced{got: func(*traced, []byte) (int, error) { return 0, nil }},
		client: traced{made: say(strings.Repeat("x", 2000))},
		opts:   []weir.StreamOption{weir.WithTailLimit(1000)},
		want: `
client made
client lost: reset
server made
server lost: tail over 1000 bytes`,
	},
	{
		name: "an exchange in mid-stream",
		server: traced{got: atOnce("UPGRADE", func(p *traced) {
			p.note("exchanged")
			p.t.SetProtocol(&traced{name: p.name + " new", trace: p.trace, t: p.t})
			say("OK")(p)
		})},
		client: traced{made: say("UPGRADEmore"), got: atOnce("OK", func(p *traced) { _ = p.t.Close() })},
		want: `
client made
client data OK
client lost: nil
server made
server exchanged
server new data more
server new end, 0 unused
server new lost: nil`,
	},
	{
		name: "paused until a timer",
		server: traced{made: func(p *traced) {
			p.t.PauseReading()
			p.t.Loop().After(5*time.Millisecond, func() { p.note("resumed"); p.t.ResumeReading() })
		}},
		client: traced{made: func(p *traced) { say("wait")(p); _ = p.t.Close() }},
		want: `
client made
client lost: nil
server made
server resumed
server data wait
server end, 0 unused
server lost: nil`,
	},
}

// play runs a scenario and returns the trace of each end, the client's first.
func play(t *testing.T, s *weirtest.Streams, server, client traced, opts []weir.StreamOption) string {
	t.Helper()
	var st, ct strings.Builder
	server.name, server.trace = "server", &st
	client.name, client.trace = "client", &ct
	s.Connect(func(weir.Transport) weir.Protocol { return &server }, &client, opts...)
	lost := func() bool {
		return strings.Contains(st.String(), " lost: ") && strings.Contains(ct.String(), " lost: ")
	}
	if !s.Until(lost) {
		t.Error("the ends were not both lost")
	}
	return strings.TrimSpace(ct.String() + st.String())
}

// TestSameTrace is behaviour 95: the same scenario gives the same callbacks on
// every backend.
func TestSameTrace(t *testing.T) {
	makers := map[string]weirtest.Maker{}
	var names []string
	for _, name := range weir.Backends() {
		names = append(names, name)
		makers[name] = weirtest.LoopStreams("tcp", weir.WithBackendName(name), weir.WithLogger(discard()))
	}
	names = append(names, "sim", "sim, cut and late")
	makers["sim"] = weirtest.SimStreams(1)
	makers["sim, cut and late"] = weirtest.SimStreams(2, weirtest.WithFaults(weirtest.Faults{
		CutRead: 0.3, CutWrite: 0.3, CutWire: 0.3, Defer: 0.3, EarlyEnd: 0.3, EmptyWait: 0.2, Again: 0.3,
		LateCancel: 0.5, Shuffle: true, Jitter: 3 * time.Millisecond,
	}))
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			if !strings.HasPrefix(name, "sim") {
				skipRefused(t, name)
			}
			for _, sc := range scenarios {
				t.Run(sc.name, func(t *testing.T) {
					got := play(t, makers[name](t), sc.server, sc.client, sc.opts)
					want := strings.TrimSpace(strings.ReplaceAll(sc.want, `\n`, "\n"))
					if got != want {
						t.Errorf("got\n%s\n\nwant\n%s", got, want)
					}
				})
			}
		})
	}
}
