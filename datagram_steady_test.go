package weir

import "testing"

// pinger sends each datagram back to where it came from.
type pinger struct {
	e     *PacketEndpoint
	count int
}

func (p *pinger) EndpointMade(e *PacketEndpoint) { p.e = e }
func (p *pinger) PacketReceived(b []byte, from PacketAddr) {
	p.count++
	_ = p.e.SendTo(b, from)
}
func (p *pinger) EndpointLost(error) {}

// TestSteadyDatagrams: a datagram costs no allocation (R6).
func TestSteadyDatagrams(t *testing.T) {
	for _, name := range Backends() {
		t.Run(name, func(t *testing.T) {
			l, err := New(WithBackendName(name))
			if err != nil {
				t.Skip(err)
			}
			defer l.Close()
			a, b := &pinger{}, &pinger{}
			ea, err := l.ListenPacket("udp4", "127.0.0.1:0", a)
			if err != nil {
				t.Fatal(err)
			}
			eb, err := l.ListenPacket("udp4", "127.0.0.1:0", b)
			if err != nil {
				t.Fatal(err)
			}
			if err := ea.SendTo(make([]byte, 64), eb.Local()); err != nil {
				t.Fatal(err)
			}
			turns := func(messages int) {
				for want := a.count + b.count + messages; a.count+b.count < want; {
					if err := l.Turn(-1); err != nil {
						t.Fatal(err)
					}
				}
			}
			turns(200)
			if n := testing.AllocsPerRun(20, func() { turns(10) }); n >= 1 {
				t.Errorf("10 datagrams cost %v allocations", n)
			}
		})
	}
}
