package layer_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/frame"
	"github.com/weir-io/weir/layer"
)

// fitting is a configuration for a server and one for its client. A program has
// its certificates in files: see CertificateFiles.
func fitting() (server, client *tls.Config) { return tlsPair(new(testing.T), tls.VersionTLS13) }

// shout is a server of lines.
func shout(t weir.Transport) weir.Protocol {
	return frame.Lines(func(line []byte) error {
		_, err := fmt.Fprintf(t, "%s!\n", line)
		return err
	})
}

// say is a client that says a line and stops the loop when it has its answer.
func say(l *weir.Loop, line string) weir.Protocol {
	return frame.Lines(
		func(answer []byte) error {
			fmt.Printf("%s\n", answer)
			l.Stop()
			return nil
		},
		frame.OnMade(func(t weir.Transport) { fmt.Fprintln(t, line) }),
	)
}

// Layers stand in their order from the wire up. Limits belong below TLS, where
// they see what passes before anything is spent on it; a log of what is said
// belongs above.
func Example() {
	l, err := weir.New()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	serverTLS, clientTLS := fitting()
	secured := layer.Server(shout,
		layer.Limit(layer.LimitConfig{Total: 1000, PerAddress: 20}),
		layer.RateLimit(layer.Rate{PerSecond: 1 << 20}, layer.Rate{}),
		layer.TLSServer(serverTLS),
		layer.Observe(func(e layer.Traffic) {
			if e.What == layer.Received || e.What == layer.Sent {
				fmt.Printf("%c %q\n", e.What, e.Data)
			}
		}),
	)
	ln, err := l.Listen("tcp", "127.0.0.1:0", secured)
	if err != nil {
		panic(err)
	}
	l.Connect("tcp", ln.Addr().String(), layer.Client(say(l, "hello"), layer.TLS(clientTLS)))
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output:
	// < "hello\n"
	// > "hello!\n"
	// hello!
}

// With ReadRecording and Replay a protocol meets a connection of yesterday again:
// its bytes, in the pieces in which they came, and its end.
func ExampleReplay() {
	var recording bytes.Buffer
	l, err := weir.New()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	ln, err := l.Listen("tcp", "127.0.0.1:0", layer.Server(shout, layer.Record(&recording)))
	if err != nil {
		panic(err)
	}
	l.Connect("tcp", ln.Addr().String(), say(l, "hello"))
	if err := l.Run(); err != nil {
		panic(err)
	}

	events, err := layer.ReadRecording(&recording, 0)
	if err != nil {
		panic(err)
	}
	err = layer.Replay(l, events, layer.ReplayConfig{Fast: true}, func(weir.Transport) weir.Protocol {
		return frame.Lines(func(line []byte) error {
			fmt.Printf("again: %s\n", line)
			l.Stop()
			return nil
		})
	})
	if err != nil {
		panic(err)
	}
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output:
	// hello!
	// again: hello
}

// Behind a load balancer the PROXY protocol says who the client is. Only peers
// that are trusted may say so.
func ExampleProxyIn() {
	l, err := weir.New()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	who := func(t weir.Transport) weir.Protocol {
		return weir.DataFunc(func(p []byte) (int, error) {
			fmt.Println("a client at", t.RemoteAddr())
			l.Stop()
			return len(p), nil
		})
	}
	balancers := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	ln, err := l.Listen("tcp", "127.0.0.1:0", layer.Server(who, layer.ProxyIn(balancers, time.Second)))
	if err != nil {
		panic(err)
	}
	// What the balancer does for a client that came from 192.0.2.7.
	client := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.7:40000"))
	own := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:443"))
	l.Connect("tcp", ln.Addr().String(),
		layer.Client(say(l, "hello"), layer.ProxyOut(layer.ProxyV2, client, own)))
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output: a client at 192.0.2.7:40000
}

// Rules about addresses, for peers and for where a proxy's clients may go: the
// latter are asked once a name is resolved, by weir.WithAddrFilter.
func ExampleAccess() {
	rules := &layer.Access{Deny: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for _, a := range []string{"192.0.2.7", "10.1.2.3", "::ffff:10.1.2.3", "169.254.169.254"} {
		fmt.Println(a, rules.Check(netip.MustParseAddr(a)))
	}
	// Output:
	// 192.0.2.7 <nil>
	// 10.1.2.3 not allowed by the rules (10.1.2.3 is in 10.0.0.0/8, which is denied)
	// ::ffff:10.1.2.3 not allowed by the rules (10.1.2.3 is in 10.0.0.0/8, which is denied)
	// 169.254.169.254 not allowed by default (169.254.169.254 is link-local)
}
