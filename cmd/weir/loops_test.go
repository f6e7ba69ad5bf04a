package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/endpoint"
)

// echo sends back what comes until the client has ended.
func echo(c *net.TCPConn) { _, _ = io.Copy(c, c) } // the test sees what arrives

// loopEvent is a line of the log of a command on several loops.
type loopEvent struct {
	Msg         string `json:"msg"`
	ID          int    `json:"id"`
	Loop        int    `json:"loop"`
	Loops       int    `json:"loops"`
	Connections int    `json:"connections"`
	Cut         int    `json:"cut"`
	Open        int    `json:"open"`
	BytesOut    int64  `json:"bytes_out"`
	BytesBack   int64  `json:"bytes_back"`
}

// events are the lines of one kind that a process has written.
func (p *process) events(kind string) (all []loopEvent) {
	p.t.Helper()
	for line := range strings.Lines(p.said()) {
		var e loopEvent
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			p.t.Errorf("%v in %q", err, line)
		}
		if e.Msg == kind {
			all = append(all, e)
		}
	}
	return all
}

// TestLoopsSessions: 2,000 short sessions on four loops, by 16 clients at once. Each gets
// all of its reply; each has a number of its own; every loop serves; and the summary is of
// all loops (R79).
func TestLoopsSessions(t *testing.T) {
	const clients, each = 16, 125
	p := start(t, "--loops", "4", "--log", "json", "--log-rate", "0", "tcp-listen:127.0.0.1:0", server(t, echo))
	at := p.listeningJSON()
	text := strings.Repeat("0123456789", 10)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range each {
				if err := roundTripEcho(at, text); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	p.signal(syscall.SIGTERM)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
	done := p.events("done")
	if len(done) != 1 || done[0].Connections != clients*each || done[0].BytesOut != clients*each*100 || done[0].BytesBack != clients*each*100 {
		t.Errorf("done: %+v", done)
	}
	ids, loops := map[int]bool{}, map[int]int{}
	for _, e := range p.events("open") {
		ids[e.ID] = true
		loops[e.Loop]++
	}
	if len(ids) != clients*each || !ids[1] || !ids[clients*each] {
		t.Errorf("%d numbers", len(ids))
	}
	if len(loops) != 4 {
		t.Errorf("sessions by loop: %v", loops)
	}
}

func roundTripEcho(at, text string) (err error) {
	c, err := net.Dial("tcp", at)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := write(c, text); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	return want(c, text)
}

// TestLoopsLimit: connections= is a bound on all loops together, and a place that one loop
// gives back is free for all. The connections are spread evenly.
func TestLoopsLimit(t *testing.T) {
	const most = 8
	var now, peak atomic.Int64
	at := server(t, func(c *net.TCPConn) {
		n := now.Add(1)
		for old := peak.Load(); n > old && !peak.CompareAndSwap(old, n); old = peak.Load() {
		}
		echo(c)
		now.Add(-1)
	})
	p := start(t, "--loops", "4", "--log", "json", "--log-rate", "0", fmt.Sprintf("tcp-listen:127.0.0.1:0,connections=%d", most), at)
	to := p.listeningJSON()
	for round := range 3 {
		var all []*net.TCPConn
		for len(all) < most {
			c, err := tryDial(t, to)
			if err == nil {
				err = errors.Join(write(c, "x"), reads(c, "x"))
			}
			if err != nil {
				if round == 0 {
					t.Fatal(err)
				}
				continue // the places of the last round are being given back
			}
			all = append(all, c)
		}
		over, err := tryDial(t, to)
		if err == nil {
			_, err = over.Read(make([]byte, 1))
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("connection %d: %v", most+1, err)
		}
		for _, c := range all {
			if err := errors.Join(c.CloseWrite(), want(c, "")); err != nil {
				t.Error(err)
			}
		}
	}
	p.signal(syscall.SIGTERM)
	p.end()
	if peak.Load() > most {
		t.Errorf("%d connections at once", peak.Load())
	}
	loops := map[int]int{}
	for _, e := range p.events("open")[:most] {
		loops[e.Loop]++
	}
	for i := range 4 {
		if loops[i] != most/4 {
			t.Errorf("the first %d connections by loop: %v", most, loops)
			break
		}
	}
}

// reads reads s, and not the end.
func reads(c net.Conn, s string) error {
	b := make([]byte, len(s))
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != s {
		return fmt.Errorf("got %q", b)
	}
	return nil
}

// TestLoopsDrain: SIGTERM while 24 connections on four loops are busy. What ends before the
// deadline ends whole; what does not is served until then, and is cut on every loop at the
// same time (R78).
func TestLoopsDrain(t *testing.T) {
	for name, c := range map[string]struct {
		stay  int
		code  int
		drain time.Duration
	}{"all end": {0, exitOK, 4 * time.Second}, "some stay": {12, exitFailure, 2 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			const clients = 24
			p := start(t, "--loops", "4", "--log", "json", "--log-rate", "0", "--drain", c.drain.String(), "tcp-listen:127.0.0.1:0", server(t, echo))
			to := p.listeningJSON()
			var asked atomic.Pointer[time.Time]
			var draining atomic.Bool // it said so
			var ready, wg sync.WaitGroup
			ready.Add(clients)
			for i := range clients {
				conn := dial(t, to)
				wg.Go(func() {
					n := 0
					for ; ; n++ {
						at := asked.Load()
						if i >= c.stay && draining.Load() {
							break
						}
						if err := errors.Join(write(conn, "some of it"), reads(conn, "some of it")); err != nil {
							if at == nil || i >= c.stay || time.Since(*at) < c.drain {
								t.Errorf("connection %d after %d messages: %v", i, n, err)
							}
							return
						}
						if n == 3 {
							ready.Done()
						}
					}
					if err := errors.Join(conn.CloseWrite(), want(conn, "")); err != nil {
						t.Errorf("connection %d at its end: %v", i, err)
					}
				})
			}
			ready.Wait()
			now := time.Now()
			asked.Store(&now)
			p.signal(syscall.SIGTERM)
			p.line(`"draining"`, 1)
			draining.Store(true)
			if code := p.end(); code != c.code {
				t.Errorf("code %d", code)
			}
			took := time.Since(now)
			wg.Wait()
			if c.stay == 0 && took > c.drain || c.stay > 0 && took < c.drain {
				t.Errorf("it took %v", took)
			}
			if d := p.events("draining"); len(d) != 1 || d[0].Open != clients {
				t.Errorf("draining: %+v", d)
			}
			if q := p.events("quitting"); c.stay > 0 && (len(q) != 1 || q[0].Cut != c.stay) {
				t.Errorf("quitting: %+v", q)
			}
			if n := len(p.events("close")); n != clients {
				t.Errorf("%d of %d connections were ended and said so", n, clients)
			}
			if d := p.events("done"); len(d) != 1 || d[0].Connections != clients {
				t.Errorf("done: %+v", d)
			}
		})
	}
}

// newLoops makes the apps of a command on a number of loops.
func newLoops(t *testing.T, stderr io.Writer, loops int, words ...string) *app {
	t.Helper()
	c := &command{stderr: stderr, lookupEnv: func(string) (string, bool) { return "", false }, table: endpoint.Default()}
	f := flags{loops: loops}
	p, err := c.plan(words, nil, f)
	if err != nil {
		t.Fatal(err)
	}
	a, err := newApp(c, p, f, newReporter(c, f))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(a.fleet.close(), a.starter.Close()); err != nil {
			t.Error(err)
		}
	})
	return a
}

// TestDrainGivenUp: what a drain has counted as given up ends, although it is connected before its
// loop hears of that.
func TestDrainGivenUp(t *testing.T) {
	a := newLoops(t, io.Discard, 1, "tcp-listen:127.0.0.1:0", "127.0.0.1:9")
	s := a.newSession()
	if n := a.early(); n != 1 {
		t.Errorf("%d given up", n)
	}
	s.id = 1 // it is connected
	if shown := a.giveUp(); shown.made != 0 || shown.open != 0 || shown.listed != 0 {
		t.Errorf("left: %+v", shown)
	}
	if !s.over {
		t.Error("it goes on")
	}
}

// untilDone lets go of what waits for it once the summary is written.
type untilDone struct {
	said chan struct{}
	all  bytes.Buffer
}

func (u *untilDone) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("done")) {
		close(u.said)
	}
	return u.all.Write(b)
}

// TestLoopsStuck: a cut does not wait for a loop that is stuck, and as no one knows what that had
// open, the exit code is 1. What is posted to loops that have ended is not reported.
func TestLoopsStuck(t *testing.T) {
	u := &untilDone{said: make(chan struct{})}
	a := newLoops(t, u, 2, "tcp-listen:127.0.0.1:0", "127.0.0.1:9")
	if !a.begin() {
		t.Fatal(u.all.String())
	}
	post(a.fleet.apps[1].loop, func() { <-u.said })
	a.loop.Soon(func() { a.cut("") })
	if err := a.fleet.run(); err != nil {
		t.Error(err)
	}
	if a.code != exitFailure {
		t.Errorf("code %d", a.code)
	}
	other := a.fleet.apps[1]
	gather(a.fleet, (*app).made, func([]int) { t.Error("a loop that has ended answers") })
	a.fleet.empty(other)
	a.overload.told(weir.BudgetStats{})
	if err := a.fleet.close(); err != nil {
		t.Error(err)
	}
	if _, end, _ := strings.Cut(u.all.String(), "done"); strings.Count(end, "\n") != 1 {
		t.Errorf("it said %s", u.all.String())
	}
}

// TestChangedElsewhere: a failure that a session on another loop finds touches nothing of the
// lead's.
func TestChangedElsewhere(*testing.T) {
	p := &picker{} // without an app: it would panic
	p.changed(0, false, &weir.ConnectError{Err: os.ErrDeadlineExceeded})
}

// TestLoopsPick: --pick is of all loops: in turn, three targets get the same number of 9
// connections that four loops serve.
func TestLoopsPick(t *testing.T) {
	var served [3]atomic.Int64
	args := []string{"--loops", "4", "--log", "json", "tcp-listen:127.0.0.1:0"}
	for i := range served {
		args = append(args, server(t, func(c *net.TCPConn) {
			served[i].Add(1)
			echo(c)
		}))
	}
	p := start(t, args...)
	to := p.listeningJSON()
	for range 9 {
		c := dial(t, to) // all stay open, so that all loops serve
		if err := errors.Join(write(c, "x"), reads(c, "x")); err != nil {
			t.Fatal(err)
		}
	}
	for i := range served {
		if n := served[i].Load(); n != 3 {
			t.Errorf("target %d served %d of 9", i, n)
		}
	}
}

// TestLoopsDown: a target that is down is reported once, and once when it is back, whichever
// loops find it out.
func TestLoopsDown(t *testing.T) {
	at := freePort(t)
	p := start(t, "--loops", "4", "tcp-listen:127.0.0.1:0", at)
	to := p.listening()
	for range 12 {
		c, err := tryDial(t, to)
		if err != nil {
			continue // it was reset before the client had looked
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("bytes without a target")
		}
		_ = c.Close() // it was reset
	}
	p.line("cannot connect", 1)
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go serveOn(l, echo)
	for range 12 {
		c := dial(t, to)
		if err := errors.Join(write(c, "x"), reads(c, "x")); err != nil {
			t.Fatal(err)
		}
	}
	p.line("turned away", 1)
	p.signal(os.Interrupt)
	p.end()
	if n := strings.Count(p.said(), "cannot connect"); n != 1 {
		t.Errorf("said %d times", n)
	}
	if n := strings.Count(p.said(), "turned away"); n != 1 {
		t.Errorf("said %d times that it is back", n)
	}
}

// TestLoopsOf: on how many loops each kind of plan runs, and that a plan for one refuses
// more.
func TestLoopsOf(t *testing.T) {
	c := &command{table: endpoint.Default()}
	for words, many := range map[string]bool{
		"8080 localhost:80":                        true,
		"8080 localhost:80 localhost:81":           true,
		"/run/a.sock unix-listen:/run/b.sock":      true,
		"unix-listen:/run/a.sock localhost:80":     true,
		"1080+socks5 dial":                         true,
		"8080+tls,cert=c.pem echo":                 true,
		"8080+latency:5ms localhost:80":            true,
		"8080+latency:5ms,seed=3 localhost:80":     false,
		"1080+socks5,bind=127.0.0.1 dial":          false,
		"- localhost:80":                           false,
		"8080 8081":                                false,
		"localhost:80 localhost:81":                false,
		"utp-listen:9 localhost:80":                false,
		"8080 utp:127.0.0.1:9":                     false,
		"udp-listen:9 udp:127.0.0.1:10":            false,
		"dns-listen:5353 resolver":                 false,
		"8080 exec":                                false,
		"serial:/dev/ttyS0 tcp-listen:localhost:1": false,
	} {
		var argv []string
		all := strings.Fields(words)
		if slices.Contains(all, "exec") {
			argv = []string{"cat"}
		}
		for loops, want := range map[int]int{everyCore: 0, 1: 1, 3: 3} {
			f := flags{loops: loops}
			p, err := c.plan(all, argv, f)
			if err != nil {
				if many || loops != 3 || !strings.Contains(err.Error(), "--loops 3 cannot be: ") {
					t.Errorf("%s, --loops %d: %v", words, loops, err)
				}
				continue
			}
			n, err := p.loopsOf(f)
			if loops == everyCore {
				if want = 1; many {
					want = n // as many as there are processors
				}
			}
			if err != nil || n != want || loops == 3 && !many {
				t.Errorf("%s, --loops %d: %d loops, %v", words, loops, n, err)
			}
		}
	}
}
