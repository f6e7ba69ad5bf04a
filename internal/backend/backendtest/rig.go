package backendtest

import (
	"bytes"
	"errors"
	"net/netip"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

// patience is how long a result may take, and patienceWaits how many Waits: a backend
// with its own time, like the simulator, may reach the second limit first.
const (
	patience      = 30 * time.Second
	patienceWaits = 200_000
)

// rig is a backend under test, with the results that it owes.
type rig struct {
	t     *testing.T
	be    backend.Backend
	caps  backend.Caps
	maker func(t *testing.T) backend.Backend
	done  []backend.Completion
	out   map[*backend.Op]bool     // armed, according to the contract
	got   map[*backend.Op][]result // results not asked for yet
}

// result is a Completion with what was lent copied.
type result struct {
	n    int
	err  error
	data []byte
	peer backend.Addr
	more bool

	truncated bool
	segment   int
	info      *backend.PacketInfo
}

// submit arms op and keeps its result if it is there at once.
func (r *rig) submit(op *backend.Op) {
	r.t.Helper()
	var c backend.Completion
	if r.be.Submit(op, &c) {
		if op.Flags&backend.Multi != 0 {
			r.t.Fatalf("Submit finished a Multi Op at once: %+v", c)
		}
		r.out[op] = true
		r.keep(&c)
		return
	}
	if c.Op != nil {
		r.t.Fatalf("Submit returned false and stored a result: %+v", c)
	}
	if !op.Armed() {
		r.t.Fatal("Submit returned false and the Op is idle")
	}
	r.out[op] = true
}

// keep checks a result against what was submitted and stores it.
func (r *rig) keep(c *backend.Completion) {
	r.t.Helper()
	op := c.Op
	if op == nil || !r.out[op] {
		r.t.Fatalf("a result for an Op that is not armed: %+v", *c)
	}
	switch {
	case c.More && op.Flags&backend.Multi == 0:
		r.t.Fatalf("More on an Op without Multi: %+v", *c)
	case c.More != op.Armed():
		r.t.Fatalf("More is %t and Armed %t", c.More, op.Armed())
	case !c.More:
		delete(r.out, op)
	}
	res := result{n: c.N, err: c.Err, data: bytes.Clone(c.Buf), more: c.More, truncated: c.Truncated}
	if c.Peer != nil {
		res.peer = *c.Peer
	}
	res.segment = int(c.Segment)
	if c.Info != nil {
		info := *c.Info
		res.info = &info
	}
	if (op.Kind == backend.Read || op.Kind == backend.RecvFrom) && c.Err == nil && len(c.Buf) != c.N {
		r.t.Fatalf("read of %d bytes with a Buf of %d", c.N, len(c.Buf))
	}
	r.got[op] = append(r.got[op], res)
}

// wait does one Wait and keeps its results.
func (r *rig) wait(timeout time.Duration) int {
	r.t.Helper()
	n, err := r.be.Wait(timeout, r.done)
	if err != nil {
		r.t.Fatalf("Wait: %v", err)
	}
	for i := range r.done[:n] {
		r.keep(&r.done[i])
	}
	return n
}

// until waits until cond holds.
func (r *rig) until(what string, cond func() bool) {
	r.t.Helper()
	start := time.Now()
	for i := 0; !cond(); i++ {
		if time.Since(start) > patience || i > patienceWaits {
			r.t.Fatalf("no %s after %v and %d Waits", what, time.Since(start).Round(time.Millisecond), i)
		}
		r.wait(100 * time.Millisecond)
	}
}

// await returns the next result of op.
func (r *rig) await(op *backend.Op) result {
	r.t.Helper()
	r.until("result", func() bool { return len(r.got[op]) > 0 })
	return r.take(op)
}

// take returns a result of op that is there.
func (r *rig) take(op *backend.Op) result {
	res := r.got[op][0]
	if r.got[op] = r.got[op][1:]; len(r.got[op]) == 0 {
		delete(r.got, op)
	}
	return res
}

// do submits op and waits for its result.
func (r *rig) do(op *backend.Op) result {
	r.t.Helper()
	r.submit(op)
	return r.await(op)
}

// cancel ends op, and takes the results that it still had to report.
func (r *rig) cancel(op *backend.Op) []result {
	r.t.Helper()
	was := r.out[op]
	if r.be.Cancel(op) {
		if !was || op.Armed() {
			r.t.Fatalf("Cancel returned true; armed before: %t, after: %t", was, op.Armed())
		}
		delete(r.out, op)
	} else if was {
		r.until("last result of a canceled Op", func() bool { return !r.out[op] })
	}
	all := r.got[op]
	delete(r.got, op)
	return all
}

// quiet checks that nothing happens for a while.
func (r *rig) quiet(d time.Duration) {
	r.t.Helper()
	for end := r.be.Now() + d; r.be.Now() < end; {
		if r.wait(max(0, end-r.be.Now())) > 0 {
			r.t.Fatalf("a result came where none was due: %+v", r.got)
		}
	}
}

func readOp(h backend.Handle, f backend.Flags) *backend.Op {
	return &backend.Op{Kind: backend.Read, Handle: h, Flags: f}
}

func writeOp(h backend.Handle, pieces ...[]byte) *backend.Op {
	return &backend.Op{Kind: backend.Write, Handle: h, Vec: pieces}
}

// write sends all of p.
func (r *rig) write(h backend.Handle, p []byte) {
	r.t.Helper()
	for len(p) > 0 {
		res := r.do(writeOp(h, p))
		if res.err != nil || res.n <= 0 {
			r.t.Fatalf("write: %d, %v", res.n, res.err)
		}
		p = p[res.n:]
	}
}

// read reads n bytes, or up to the end if n is below 0.
func (r *rig) read(h backend.Handle, n int) []byte {
	r.t.Helper()
	var all []byte
	for n < 0 || len(all) < n {
		res := r.do(readOp(h, 0))
		if res.err != nil {
			r.t.Fatalf("read after %d bytes: %v", len(all), res.err)
		}
		if res.n == 0 {
			if n >= 0 {
				r.t.Fatalf("end of stream after %d of %d bytes", len(all), n)
			}
			return all
		}
		all = append(all, res.data...)
	}
	if n >= 0 && len(all) > n {
		r.t.Fatalf("read %d bytes where %d were sent: %q", len(all), n, all)
	}
	return all
}

func (r *rig) wantRead(h backend.Handle, want string) {
	r.t.Helper()
	if got := r.read(h, len(want)); string(got) != want {
		r.t.Fatalf("read %q, want %q", got, want)
	}
}

func (r *rig) wantEOF(h backend.Handle) {
	r.t.Helper()
	if res := r.do(readOp(h, 0)); res.err != nil || res.n != 0 {
		r.t.Fatalf("read: %d, %v, want the end of the stream", res.n, res.err)
	}
}

func (r *rig) shut(h backend.Handle, how backend.How) {
	r.t.Helper()
	if err := r.be.Shut(h, how); err != nil {
		r.t.Fatalf("Shut(%d, %d): %v", h, how, err)
	}
}

// network is a kind of socket to try things on.
type network struct {
	name  string
	spec  backend.Spec
	inet  bool
	local func(*rig) backend.Addr
}

var (
	tcp4 = network{name: "tcp4", spec: backend.Spec{Family: backend.Inet}, inet: true, local: loopback("127.0.0.1")}
	tcp6 = network{name: "tcp6", spec: backend.Spec{Family: backend.Inet, IPv6: true}, inet: true, local: loopback("::1")}
	unix = network{name: "unix", spec: backend.Spec{Family: backend.Unix}, local: func(r *rig) backend.Addr {
		return backend.Addr{Family: backend.Unix, Path: filepath.Join(r.t.TempDir(), "s")}
	}}
	abstract = network{name: "abstract", spec: backend.Spec{Family: backend.Unix}, local: func(r *rig) backend.Addr {
		return backend.Addr{Family: backend.Unix, Path: "@weir" + filepath.Base(r.t.TempDir()) + r.t.Name()}
	}}
	networks = []network{tcp4, tcp6, unix, abstract}
)

func loopback(ip string) func(*rig) backend.Addr {
	return func(*rig) backend.Addr {
		return backend.Addr{Family: backend.Inet, IP: netip.AddrPortFrom(netip.MustParseAddr(ip), 0)}
	}
}

// onEach runs f on each available kind of socket.
func onEach(nets []network, f func(*rig, network)) func(*rig) {
	return func(r *rig) {
		for _, n := range nets {
			r.t.Run(n.name, func(t *testing.T) {
				sub := newRig(t, r.maker)
				f(sub, n)
			})
		}
	}
}

// missing reports whether err says that this kind of socket does not exist here.
func missing(err error) bool {
	for _, e := range []error{backend.ErrUnsupported, syscall.EAFNOSUPPORT, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// listen opens a listener and returns its address.
func (r *rig) listen(n network, edit ...func(*backend.Spec)) (backend.Handle, backend.Addr) {
	r.t.Helper()
	spec := n.spec
	spec.Bind, spec.Local, spec.Backlog = true, n.local(r), 128
	for _, e := range edit {
		e(&spec)
	}
	h, err := r.be.Open(&spec)
	if missing(err) {
		r.t.Skipf("backend %s lacks %s sockets: %v", r.caps.Name, n.name, err)
	}
	if err != nil {
		r.t.Fatalf("listen: %v", err)
	}
	a, err := r.be.Name(h, false)
	if err != nil {
		r.t.Fatalf("name of a listener: %v", err)
	}
	return h, a
}

func (r *rig) open(n network, edit ...func(*backend.Spec)) backend.Handle {
	r.t.Helper()
	spec := n.spec
	for _, f := range edit {
		f(&spec)
	}
	h, err := r.be.Open(&spec)
	if err != nil {
		r.t.Fatalf("open: %v", err)
	}
	return h
}

func connectOp(h backend.Handle, to backend.Addr) *backend.Op {
	return &backend.Op{Kind: backend.Connect, Handle: h, Addr: &to}
}

// dial connects a new socket to a listener and accepts it.
func (r *rig) dial(n network, listener backend.Handle, to backend.Addr) (client, server backend.Handle) {
	r.t.Helper()
	client = r.open(n)
	accept := &backend.Op{Kind: backend.Accept, Handle: listener}
	r.submit(accept)
	if res := r.do(connectOp(client, to)); res.err != nil {
		r.t.Fatalf("connect: %v", res.err)
	}
	res := r.await(accept)
	if res.err != nil {
		r.t.Fatalf("accept: %v", res.err)
	}
	return client, backend.Handle(res.n)
}

// pair returns the two ends of a new connection.
func (r *rig) pair(n network) (client, server backend.Handle) {
	r.t.Helper()
	l, a := r.listen(n)
	client, server = r.dial(n, l, a)
	r.shut(l, backend.CloseFlat)
	return client, server
}

// pattern returns n bytes that differ from place to place.
func pattern(n int, seed uint32) []byte {
	p := make([]byte, n)
	x := seed*2654435761 + 1
	for i := range p {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		p[i] = byte(x)
	}
	return p
}
