package layer_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/frame"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/sink"
)

// fitting returns a configuration for a server and one for its client. A
// program keeps its certificates in files: see certs.Files.
func fitting() (server, client *tls.Config) { return tlsPair(new(testing.T), tls.VersionTLS13) }

// shout is a server of lines.
func shout(t weir.Transport) weir.Protocol {
	return frame.Lines(func(line []byte) error {
		_, err := fmt.Fprintf(t, "%s!\n", line)
		return err
	})
}

// say is a client that sends a line and stops the loop when it has the answer.
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

// Layers are given in order from the wire up. Limits belong below TLS, where
// they see what passes before anything is spent on it; a log of what is said
// belongs above TLS.
func Example() {
	l, err := weir.NewLoop()
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

// With ReadRecording and Replay a protocol meets an earlier connection again:
// its bytes, in the pieces in which they came, and its end.
func ExampleReplay() {
	var recording bytes.Buffer
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	// For a file, a program starts the sink, and nothing waits for the disk.
	s := sink.New(&recording, sink.Config{Gap: layer.RecordingGap})
	ln, err := l.Listen("tcp", "127.0.0.1:0", layer.Server(shout, layer.Record(s)))
	if err != nil {
		panic(err)
	}
	l.Connect("tcp", ln.Addr().String(), say(l, "hello"))
	if err := l.Run(); err != nil {
		panic(err)
	}

	if err := s.Close(context.Background()); err != nil {
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
