package layer_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/relay"
	"github.com/weir-io/weir/weirtest"
)

// TestTLSRelay: a relay between TLS and a plain stream passes on every byte and
// the ends, both ways, however reads and writes are cut and whichever side is
// slow (G1, behaviour 52).
func TestTLSRelay(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 6
	}
	server, client := tlsPair(t, tls.VersionTLS13)
	for name, encrypts := range map[string]bool{"decrypts": false, "encrypts": true} {
		t.Run(name, func(t *testing.T) {
			for seed := range seeds {
				t.Run(fmt.Sprint(seed+1), func(t *testing.T) { tlsRelay(t, server, client, encrypts, seed+1) })
			}
		})
	}
}

// tlsRelay runs a relay that terminates TLS, or one that originates it.
func tlsRelay(t *testing.T, server, client *tls.Config, encrypts bool, seed uint64) {
	sim := weirtest.NewSim(t, seed, weirtest.WithFaults(weirtest.Faults{
		CutRead: 0.1, CutWrite: 0.2, CutWire: 0.2, Again: 0.1, Defer: 0.2, Shuffle: true,
		Jitter: time.Millisecond, NoInline: seed%4 == 3,
	}))
	at := time.Now()
	server, client = server.Clone(), client.Clone()
	server.Time = func() time.Time { return at }
	client.Time = server.Time
	// The layers of the client, of the relay towards both, and of the backend.
	outer, inner := []layer.Layer{layer.TLS(client)}, []layer.Layer{layer.TLSServer(server)}
	var dials, serves []layer.Layer
	if encrypts {
		outer, inner, dials, serves = dials, serves, outer, inner
	}
	here, mid, there := sim.Host("here").Loop(), sim.Host("mid").Loop(), sim.Host("there").Loop()
	r := rand.New(rand.NewPCG(seed, 1))
	ends := [2]*pourer{newPourer(r), newPourer(r)}
	_, err := there.Listen("tcp", ":7001", layer.Server(func(weir.Transport) weir.Protocol { return ends[1] }, serves...))
	if err != nil {
		t.Fatal(err)
	}
	var res *relay.Result
	_, err = mid.Listen("tcp", ":7000", layer.Server(func(weir.Transport) weir.Protocol {
		j := relay.New(relay.Config{Done: func(r relay.Result) { res = &r }})
		mid.Connect("tcp", "there:7001", layer.Client(j.Protocol(relay.B), dials...))
		return j.Protocol(relay.A)
	}, inner...))
	if err != nil {
		t.Fatal(err)
	}
	here.Connect("tcp", "mid:7000", layer.Client(ends[0], outer...))
	sim.Until("the ends", func() bool { return res != nil && ends[0].lost && ends[1].lost })
	if res.Why != nil {
		t.Errorf("the relay ended with %v", res.Why)
	}
	for i, e := range ends {
		if e.err != nil || !e.ended {
			t.Errorf("end %d: the stream's end came: %v, then %v", i, e.ended, e.err)
		}
		if want := ends[1-i].data; !bytes.Equal(e.got, want) {
			t.Errorf("end %d got %d bytes of %d, or others", i, len(e.got), len(want))
		}
	}
}

// pourer sends its data in pieces of any size, as fast as allowed, then the
// end; now and then it pauses reading.
type pourer struct {
	r      *rand.Rand
	t      weir.Transport
	data   []byte
	sent   int
	paused bool
	got    []byte
	ended  bool
	lost   bool
	err    error
}

func newPourer(r *rand.Rand) *pourer {
	p := &pourer{r: r, data: make([]byte, 100_000+r.IntN(600_000))}
	for i := range p.data {
		p.data[i] = byte(r.Uint32())
	}
	return p
}

func (p *pourer) ConnectionMade(t weir.Transport) {
	p.t = t
	p.pour()
}

func (p *pourer) pour() {
	for !p.paused && p.sent < len(p.data) {
		n := min(1+p.r.IntN([]int{10, 2_000, 20_000, 150_000}[p.r.IntN(4)]), len(p.data)-p.sent)
		if _, err := p.t.Write(p.data[p.sent : p.sent+n]); err != nil {
			return
		}
		if p.sent += n; p.sent == len(p.data) {
			_ = p.t.WriteEOF() // a loss is reported by ConnectionLost
		}
	}
}

func (p *pourer) PauseWriting() { p.paused = true }

func (p *pourer) ResumeWriting() {
	p.paused = false
	p.pour()
}

func (p *pourer) DataReceived(b []byte) (int, error) {
	p.got = append(p.got, b...)
	if p.r.IntN(30) == 0 {
		p.t.PauseReading()
		p.t.Loop().After(time.Duration(p.r.IntN(20))*time.Millisecond, p.t.ResumeReading)
	}
	return len(b), nil
}

func (p *pourer) EOFReceived(int) (bool, error) {
	p.ended = true
	return true, nil
}

func (p *pourer) ConnectionLost(err error) { p.lost, p.err = true, err }
