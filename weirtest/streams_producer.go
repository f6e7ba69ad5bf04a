package weirtest

import (
	"errors"

	"github.com/weir-io/weir"
)

// pusher is a push producer: it writes until it is paused.
type pusher struct {
	c       *streamCase
	e       *end
	left    int // bytes
	piece   int
	paused  bool
	pauses  int
	resumes int
	stops   int
	most    int // bytes seen buffered
	inside  bool
}

func (p *pusher) Streaming() bool { return true }

func (p *pusher) PauseProducing() {
	if p.paused {
		p.c.Error("PauseProducing twice")
	}
	p.pauses++
	p.paused = true
}

func (p *pusher) ResumeProducing() {
	if !p.paused || p.inside {
		p.c.Error("ResumeProducing while not paused")
	}
	p.resumes++
	p.paused = false
	p.work()
}

func (p *pusher) StopProducing() { p.stops++ }

func (p *pusher) work() {
	p.inside = true
	for !p.paused && p.left > 0 {
		n := min(p.piece, p.left)
		p.left -= n
		p.e.write(message(n))
		p.most = max(p.most, p.e.tr.Buffered())
	}
	p.inside = false
	if p.left == 0 {
		p.e.tr.UnregisterProducer()
	}
}

// puller is a pull producer: it writes one piece each time it is asked.
type puller struct {
	c     *streamCase
	e     *end
	left  int
	piece int
	asked int
	stops int
}

func (p *puller) Streaming() bool { return false }
func (p *puller) PauseProducing() { p.c.Error("a pull producer was paused") }
func (p *puller) StopProducing()  { p.stops++ }

func (p *puller) ResumeProducing() {
	p.asked++
	if n := p.e.tr.Buffered(); n > 0 {
		p.c.Errorf("asked for more with %d bytes buffered", n)
	}
	n := min(p.piece, p.left)
	p.left -= n
	if n > 0 {
		p.e.write(message(n))
	}
	if p.left == 0 {
		p.e.tr.UnregisterProducer()
	}
}

// producerTests are behaviour 42 and R31.
var producerTests = []streamTest{
	{"42 a push producer is paused and resumed", 0, func(c *streamCase) {
		server, client := c.pair()
		const size = 32 << 20
		p := &pusher{c: c, e: client, left: size, piece: 50_000}
		server.onMade = func() { server.tr.PauseReading() }
		client.onMade = func() {
			if err := client.tr.RegisterProducer(p); err != nil {
				c.Error(err)
			}
			p.work()
			client.close()
		}
		c.begin(server, client)
		c.until("the pause", func() bool { return server.made > 0 && p.pauses > 0 })
		server.resume()
		c.until("the end", func() bool { return server.eofs > 0 || server.lost > 0 })
		if len(server.got) != size {
			c.Errorf("%d bytes arrived", len(server.got))
		}
		if p.pauses == 0 || p.resumes == 0 || p.stops != 0 {
			c.Errorf("paused %d, resumed %d, stopped %d times", p.pauses, p.resumes, p.stops)
		}
		if p.most > c.g3(64<<10+50_000) {
			c.Errorf("%d bytes buffered (G3)", p.most)
		}
		server.close()
		c.allLost()
		c.wantClean(client)
	}},
	{"42 a pull producer is asked when its piece has left", 0, func(c *streamCase) {
		server, client := c.pair()
		p := &puller{c: c, e: client, left: 1_000_000, piece: 30_000}
		client.onMade = func() {
			if err := client.tr.RegisterProducer(p); err != nil {
				c.Error(err)
			}
			client.close()
		}
		c.begin(server, client)
		c.until("the end", func() bool { return server.eofs > 0 || server.lost > 0 })
		if len(server.got) != 1_000_000 || p.asked != 34 || p.stops != 0 {
			c.Errorf("%d bytes arrived, asked %d times, stopped %d times", len(server.got), p.asked, p.stops)
		}
	}},
	{"42 Close waits for the producer to unregister", 0, func(c *streamCase) {
		server, client := c.pair()
		c.connect(server, client)
		p := &pusher{c: c, e: client}
		if err := client.tr.RegisterProducer(p); err != nil {
			c.Fatal(err)
		}
		client.write([]byte("first"))
		client.close()
		c.quiet()
		if client.lost != 0 || p.stops != 0 {
			c.Errorf("%s; stopped %d times", client, p.stops)
		}
		client.write([]byte(", last"))
		client.tr.UnregisterProducer()
		if n, err := client.tr.Write([]byte("x")); n != 0 || !errors.Is(err, weir.ErrClosed) {
			c.Errorf("Write after it: %d, %v", n, err)
		}
		c.until("the client lost", func() bool { return client.lost > 0 })
		c.until("the end", func() bool { return server.eofs > 0 })
		c.wantBytes(server, []byte("first, last"))
		c.wantClean(client)
	}},
	{"42 a producer registered on a dead transport is told to stop", 0, func(c *streamCase) {
		server, client := c.pair()
		server.keepOpen = false
		c.connect(server, client)
		client.abort()
		during := &pusher{c: c, e: client}
		client.alone("RegisterProducer", func() { _ = client.tr.RegisterProducer(during) })
		if during.stops != 0 {
			c.Error("stopped from inside RegisterProducer")
		}
		c.allLost()
		after := &puller{c: c, e: client}
		_ = client.tr.RegisterProducer(after)
		c.until("both told", func() bool { return during.stops == 1 && after.stops == 1 })
		c.quiet()
		if during.stops != 1 || after.stops != 1 {
			c.Errorf("stopped %d and %d times", during.stops, after.stops)
		}
	}},
	{"42 a second producer is an error", 0, func(c *streamCase) {
		server, client := c.pair()
		server.keepOpen = false
		c.connect(server, client)
		p, q := &pusher{c: c, e: client}, &pusher{c: c, e: client}
		if err := client.tr.RegisterProducer(p); err != nil {
			c.Fatal(err)
		}
		if err := client.tr.RegisterProducer(q); !errors.Is(err, weir.ErrProducerRegistered) {
			c.Errorf("a second one: %v", err)
		}
		client.tr.UnregisterProducer()
		client.tr.UnregisterProducer()
		if err := client.tr.RegisterProducer(q); err != nil {
			c.Errorf("after the first unregistered: %v", err)
		}
		client.abort()
		c.allLost()
		if p.stops != 0 || q.stops != 1 {
			c.Errorf("stopped %d and %d times", p.stops, q.stops)
		}
	}},
	{"42 registered while the buffer is over the mark", 0, func(c *streamCase) {
		server, client := c.pair()
		fill(c, server, client)
		for client.pauses == 0 {
			client.write(message(200_000))
		}
		p := &pusher{c: c, e: client, left: 1000, piece: 1000}
		if err := client.tr.RegisterProducer(p); err != nil {
			c.Fatal(err)
		}
		c.pass(1e6)
		if !p.paused {
			c.Error("the producer does not know that the buffer is full")
		}
		server.resume()
		c.until("the resume", func() bool { return p.resumes == 1 })
	}},
	{"42 the reset tells the producer", needReset, func(c *streamCase) {
		server, client := c.pair()
		c.connect(server, client)
		p := &pusher{c: c, e: client}
		if err := client.tr.RegisterProducer(p); err != nil {
			c.Fatal(err)
		}
		server.abort()
		c.allLost()
		if p.stops != 1 {
			c.Errorf("stopped %d times", p.stops)
		}
	}},
	{"42 a producer's panic loses its connection", 0, func(c *streamCase) {
		for _, where := range []string{"PauseProducing", "ResumeProducing", "pull"} {
			server, client := c.pair()
			server.onMade = func() { server.tr.PauseReading() }
			c.connect(server, client)
			if err := client.tr.RegisterProducer(&bomb{where}); err != nil {
				c.Fatal(err)
			}
			if where != "pull" {

				for n := 0; client.lost == 0 && client.tr.Buffered() <= 64<<10 && n < 256<<20; n += 200_000 {
					_, _ = client.tr.Write(message(200_000)) // ErrClosed after the panic
				}
				server.resume()
			}
			c.until(where, func() bool { return client.lost > 0 })
			c.wantReason(client, isPanic, "*PanicError after "+where)
			c.finish()
		}
	}},
}

// bomb is a producer that panics.
type bomb struct{ where string }

func (b *bomb) Streaming() bool { return b.where != "pull" }
func (b *bomb) StopProducing()  {}

func (b *bomb) PauseProducing() {
	if b.where == "PauseProducing" {
		panic(b.where)
	}
}

func (b *bomb) ResumeProducing() {
	if b.where != "PauseProducing" {
		panic(b.where)
	}
}
