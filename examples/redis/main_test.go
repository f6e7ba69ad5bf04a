package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// start serves a fresh store on a loop of its own until the test ends.
func start(t *testing.T) (addr string) {
	weirtest.CheckLeaks(t)
	l, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := l.Listen("tcp", "127.0.0.1:0", newStore().serve)
	if err != nil {
		t.Fatal(err)
	}
	addr = ln.Addr().String()
	ran := make(chan error, 1)
	go func() {
		err := l.Run()
		if err == nil {
			err = l.Close()
		}
		ran <- err
	}()
	t.Cleanup(func() {
		l.Stop()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
	return addr
}

type client struct {
	t *testing.T
	c net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, addr string) *client {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return &client{t, c, bufio.NewReader(c)}
}

// encode is a command as clients send it.
func encode(words ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	return b.String()
}

// do sends a command and returns its reply as text.
func (c *client) do(words ...string) string {
	c.t.Helper()
	if _, err := io.WriteString(c.c, encode(words...)); err != nil {
		c.t.Fatal(err)
	}
	return c.reply()
}

func (c *client) reply() string {
	c.t.Helper()
	line, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatal(err)
	}
	line = strings.TrimSuffix(line, "\r\n")
	var n int
	switch {
	case line == "$-1" || line == "*-1":
		return "nil"
	case line[0] == '$':
		fmt.Sscanf(line[1:], "%d", &n)
		b := make([]byte, n+2)
		if _, err := io.ReadFull(c.r, b); err != nil {
			c.t.Fatal(err)
		}
		return string(b[:n])
	case line[0] == '*':
		fmt.Sscanf(line[1:], "%d", &n)
		all := make([]string, n)
		for i := range all {
			all[i] = c.reply()
		}
		return "[" + strings.Join(all, " ") + "]"
	}
	return line
}

// conversation is what a client sends and what Redis answers: a reply for each.
var conversation = []struct{ command, reply string }{
	{"PING", "+PONG"},
	{"ping hello", "hello"},
	{"ECHO hi", "hi"},
	{"ECHO", "-ERR wrong number of arguments for 'echo' command"},
	{"GET k", "nil"},
	{"SET k v", "+OK"},
	{"GET k", "v"},
	{"SET k w NX", "nil"},
	{"SET k w XX GET", "v"},
	{"SET none w XX", "nil"},
	{"SET k w EX", "-ERR syntax error"},
	{"SET k w EX 0", "-ERR invalid expire time in 'set' command"},
	{"SET k w EX x", "-ERR value is not an integer or out of range"},
	{"SET k w EX 9223372036854775807", "-ERR invalid expire time in 'set' command"},
	{"SET k w NX XX", "-ERR syntax error"},
	{"GET k", "w"},
	{"INCR k", "-ERR value is not an integer or out of range"},
	{"INCR n", ":1"},
	{"INCRBY n 9223372036854775806", ":9223372036854775807"},
	{"INCR n", "-ERR increment or decrement would overflow"},
	{"GET n", "9223372036854775807"},
	{"SET n -5", "+OK"},
	{"DECR n", ":-6"},
	{"SET n 007", "+OK"},
	{"INCR n", "-ERR value is not an integer or out of range"},
	{"EXISTS k n none k", ":3"},
	{"TTL k", ":-1"},
	{"TTL none", ":-2"},
	{"EXPIRE k 100", ":1"},
	{"TTL k", ":100"},
	{"EXPIRE k 50 GT", ":0"},
	{"EXPIRE k 200 GT", ":1"},
	{"EXPIRE k 300 LT", ":0"},
	{"EXPIRE k 300 NX", ":0"},
	{"EXPIRE k 300 NX GT", "-ERR NX and XX, GT or LT options at the same time are not compatible"},
	{"EXPIRE k 300 ZZ", "-ERR Unsupported option ZZ"},
	{"EXPIRE none 300", ":0"},
	{"TTL k", ":200"},
	{"SET k v KEEPTTL", "+OK"},
	{"TTL k", ":200"},
	{"PERSIST k", ":1"},
	{"PERSIST k", ":0"},
	{"TTL k", ":-1"},
	{"SET k v PX 100000", "+OK"},
	{"TTL k", ":100"},
	{"SET k v", "+OK"},
	{"TTL k", ":-1"},
	{"EXPIRE k -1", ":1"},
	{"GET k", "nil"},
	{"SET k v PXAT 1", "+OK"},
	{"GET k", "nil"},
	{"DEL n none", ":1"},
	{"DBSIZE", ":0"},
	{"SELECT 0", "+OK"},
	{"SELECT 1", "-ERR DB index is out of range"},
	{"CONFIG GET save", "[save ]"},
	{"CONFIG GET max*", "[maxmemory 0 maxmemory-policy noeviction]"},
	{"CONFIG GET nothing", "[]"},
	{"CONFIG SET save x", "-ERR unknown subcommand 'SET'. Try CONFIG GET."},
	{"COMMAND INFO get none", "[[get :2 [+readonly +fast] :1 :1 :1 [] [] [] []] nil]"},
	{"HELLO 3", "-NOPROTO unsupported protocol version"},
	{"FLUSHALL", "+OK"},
	{"WHAT a b", "-ERR unknown command 'WHAT', with args beginning with: 'a' 'b' "},
	{"QUIT", "+OK"},
}

func TestConversation(t *testing.T) {
	c := dial(t, start(t))
	for _, x := range conversation {
		if got := c.do(strings.Fields(x.command)...); got != x.reply {
			t.Errorf("%s: %q, want %q", x.command, got, x.reply)
		}
	}
	if _, err := c.r.ReadByte(); err != io.EOF {
		t.Errorf("after QUIT: %v", err)
	}
}

// The same without sockets, pipelined, and however it is split (behaviour 92).
func TestPipelineEveryChop(t *testing.T) {
	var stream bytes.Buffer
	for _, x := range conversation {
		if strings.HasPrefix(x.command, "TTL") || strings.HasPrefix(x.command, "SET k w EX") {
			continue
		}
		stream.WriteString(encode(strings.Fields(x.command)...))
	}
	tail := "PING\r\n\r\nECHO \"a\\x41 b\" \r\n"
	all := tail + encode("SET", "big", strings.Repeat("x", 3000)) + encode("GET", "big") + stream.String()
	weirtest.EveryChop(t, []byte(all), server(t))
}

// server makes connections, each with a store of its own, whose loop's clock
// stands still.
func server(t testing.TB) func(func(string, ...any)) weir.Protocol {
	l, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return func(func(string, ...any)) weir.Protocol { return &still{loop: l} }
}

// still is a conn on a transport that has a loop.
type still struct {
	conn
	loop *weir.Loop
}

func (s *still) ConnectionMade(t weir.Transport) {
	t.(*weirtest.Recorder).SetLoop(s.loop)
	s.store, s.t = newStore(), t
}

func TestProtocolErrors(t *testing.T) {
	for stream, want := range map[string]string{
		"*1\r\n:3\r\n":                       "expected '$', got ':'",
		"*1\r\n\x01":                         "expected '$', got '\\x01'",
		"*x\r\n":                             "invalid multibulk length",
		"*1048577\r\n":                       "invalid multibulk length",
		"*1\r\n$-1\r\n":                      "invalid bulk length",
		"*1\r\n$536870913\r\n":               "invalid bulk length",
		"*1\r\n$+1\r\n":                      "invalid bulk length",
		"ECHO \"a\r\n":                       "unbalanced quotes in request",
		"ECHO 'a'b\r\n":                      "unbalanced quotes in request",
		strings.Repeat("x", maxLine+1):       "too big inline request",
		"*" + strings.Repeat("1", maxLine+1): "too big mbulk count string",
		"*1\r\n$" + strings.Repeat("1", maxLine+1): "too big bulk count string",
	} {
		for _, piece := range []int{1000, 1 << 20} {
			r := weirtest.NewRecorder(t)
			r.Connect(newStore().serve(r))
			for rest := []byte("PING\r\n" + stream + "PING\r\n"); len(rest) > 0; {
				n := min(piece, len(rest))
				r.Deliver(rest[:n])
				rest = rest[n:]
			}
			reply := "+PONG\r\n-ERR Protocol error: " + want + "\r\n"
			lost, err := r.Lost()
			if got := r.TakeWritten(); got != reply || !lost || err != nil {
				t.Errorf("%.40q in pieces of %d: %q, lost %v, %v", stream, piece, got, lost, err)
			}
		}
	}
}

func TestInlineWords(t *testing.T) {
	for line, want := range map[string]string{
		"":                     "[]",
		"  a  b\t":             "[a b]",
		`"a b" 'c d'`:          `[a b c d]`,
		`"\x41\n\"\\" 'it\'s'`: "[A\n\"\\ it's]",
		`a"b c"`:               "[ab c]",
		`'\x41'`:               `[\x41]`,
	} {
		words, ok := splitWords(nil, []byte(line))
		if got := fmt.Sprintf("%s", words); !ok || got != want {
			t.Errorf("%q: %s, want %s", line, got, want)
		}
	}
}

// A large value passes, however much the transport keeps for us, and its buffer
// is released.
func TestLargeValue(t *testing.T) {
	addr := start(t)
	c := dial(t, addr)
	want := strings.Repeat("0123456789abcdef", 1<<20/4)
	if got := c.do("SET", "big", want); got != "+OK" {
		t.Fatal(got)
	}
	if got := c.do("GET", "big"); got != want {
		t.Errorf("%d bytes came back of %d", len(got), len(want))
	}
}

// Expiry by the loop's timers: never early, and then the key is gone without
// being asked for.
func TestExpiry(t *testing.T) {
	c := dial(t, start(t))
	begin := time.Now()
	const life = 30 * time.Millisecond
	for _, words := range [][]string{{"SET", "a", "1", "PX", "30"}, {"SET", "b", "1"}, {"PEXPIRE", "b", "30"}, {"SET", "c", "1"}} {
		c.do(words...)
	}
	for c.do("DBSIZE") != ":1" {
		if time.Since(begin) > 20*time.Second {
			t.Fatal("the keys stay")
		}
	}
	if took := time.Since(begin); took < life {
		t.Errorf("gone after %v", took)
	}
	if got := c.do("EXISTS", "a", "b", "c"); got != ":1" {
		t.Errorf("%s keys are left", got)
	}
}

// A client that pipelines and never reads is no longer read from: the replies
// that it is owed stay bounded.
func TestClientThatNeverReads(t *testing.T) {
	r := weirtest.NewRecorder(t)
	r.SetRoom(0)
	s := newStore()
	s.set([]byte("k"), bytes.Repeat([]byte("v"), 2000))
	r.Connect(s.serve(r))
	for range 1000 {
		r.DeliverString("GET k\r\n")
	}
	if n := r.Buffered(); n < 60_000 || n > 70_000 {
		t.Errorf("%d bytes are owed", n)
	}
	r.SetRoom(-1)
	if n := bytes.Count(r.Written(), []byte("$2000\r\n")); n != 1000 {
		t.Errorf("%d replies in the end", n)
	}
}

func TestNoAllocationPerGet(t *testing.T) {
	s := newStore()
	s.set([]byte("key"), []byte("value"))
	c := &conn{store: s, t: discard{}}
	get, set := []byte(encode("GET", "key")), []byte(encode("SET", "key", "other"))
	got := testing.AllocsPerRun(100, func() {
		for _, p := range [][]byte{get, set} {
			if n, err := c.DataReceived(p); n != len(p) || err != nil {
				t.Fatal(n, err)
			}
		}
	})
	if got != 0 {
		t.Errorf("%v allocations for a GET and a SET", got)
	}
}

// discard is a transport on which only Write is called.
type discard struct{ weir.Transport }

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// The public client, if it is installed.
func TestRedisCLI(t *testing.T) {
	cli, err := exec.LookPath("redis-cli")
	if err != nil {
		t.Skip("redis-cli is not installed (Debian: redis-tools)")
	}
	_, port, _ := net.SplitHostPort(start(t))
	cmd := exec.Command(cli, "-p", port)
	cmd.Stdin = strings.NewReader("set greeting \"hello world\" ex 10\nget greeting\nttl greeting\nincr n\ncommand count\n")
	out, err := cmd.CombinedOutput()
	if want := fmt.Sprintf("OK\nhello world\n10\n1\n%d\n", len(commands())); err != nil || string(out) != want {
		t.Errorf("redis-cli printed %q, want %q: %v", out, want, err)
	}
}

// And its load generator, pipelining on fifty connections.
func TestRedisBenchmark(t *testing.T) {
	bench, err := exec.LookPath("redis-benchmark")
	if err != nil {
		t.Skip("redis-benchmark is not installed (Debian: redis-tools)")
	}
	_, port, _ := net.SplitHostPort(start(t))
	out, err := exec.Command(bench, "-p", port, "-t", "ping,set,get,incr", "-n", "2000", "-P", "16", "-q").CombinedOutput()
	if err != nil || bytes.Count(out, []byte("requests per second")) != 5 || bytes.Contains(out, []byte("rror")) {
		t.Errorf("redis-benchmark: %v\n%s", err, out)
	}
}

func FuzzRequests(f *testing.F) {
	for _, x := range conversation {
		f.Add([]byte(encode(strings.Fields(x.command)...) + x.command + "\r\n"))
	}
	f.Add([]byte("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n*1\r\n$-1\r\n"))
	f.Add([]byte("ECHO \"\\x4\\n\" 'a\\'b'\r\n*0\r\n*-1\r\nPING\n"))
	make := server(f)
	talk := func(t *testing.T, stream []byte, c weirtest.Chop) string {
		r := weirtest.NewRecorder(t)
		r.Connect(make(nil))
		weirtest.Feed(r, stream, c)
		r.DeliverEOF()
		lost, err := r.Lost()
		return fmt.Sprintf("%q %v %v", r.Written(), lost, err)
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		if len(stream) > 1<<12 {
			return
		}
		want := talk(t, stream, weirtest.Whole())
		for _, c := range []weirtest.Chop{weirtest.ByteByByte(), weirtest.Random(uint64(len(stream)))} {
			if got := talk(t, stream, c); got != want {
				t.Errorf("%s: %s\nwant %s", c, got, want)
			}
		}
		if strings.Contains(want, "panic") {
			t.Error(want)
		}
	})
}
