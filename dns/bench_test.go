package dns

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/weir-io/weir"
)

// BenchmarkQuery asks a server on the same loop, which answers at once, with 64
// questions under way and no cache: what a query costs in addition to the
// server's work. bench/cmd/dnsload compares it with other clients.
func BenchmarkQuery(b *testing.B) {
	l, err := weir.NewLoop()
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	reply := make([]byte, 0, 512)
	server, err := l.ListenPacket("udp4", "127.0.0.1:0", weir.PacketFunc(func(e *weir.PacketEndpoint, p []byte, from weir.PacketAddr) {
		reply = append(reply[:0], p...)
		reply[2], reply[3] = reply[2]|0x80, 0x83 // there is no such name
		if err := e.SendTo(reply, from); err != nil {
			b.Error(err)
		}
	}).Protocol())
	if err != nil {
		b.Fatal(err)
	}
	r := New(WithServers(server.Local().IP), WithHosts(nil), WithCache(0), WithTimeout(5*time.Second, 2))
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprintf("n%d.test.", i)
	}
	begun, ended := 0, 0
	var ask func()
	ask = func() {
		begun++
		r.Lookup(l, names[begun%len(names)], A, func(_ Answer, err error) {
			if !errors.Is(err, ErrNotFound) {
				b.Error(err)
			}
			ended++
			switch {
			case begun < b.N:
				ask()
			case ended == b.N:
				l.Stop()
			}
		})
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range min(64, b.N) {
		ask()
	}
	if err := l.Run(); err != nil {
		b.Fatal(err)
	}
}
