// Command wsecho is a WebSocket server that sends every message back, and a
// client that sends messages and checks what comes back.
//
//	wsecho [-compress] [ADDR]                       serve, on 127.0.0.1:7000
//	wsecho [-compress] -send N[,N...] ADDR[/PATH]   send messages of N bytes, text and binary
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/ws"
)

func main() {
	compress := flag.Bool("compress", false, "offer or accept permessage-deflate")
	send := flag.String("send", "", "be a client: send messages of these lengths")
	flag.Parse()
	addr := "127.0.0.1:7000"
	if flag.NArg() > 0 {
		addr = flag.Arg(0)
	}
	c := ws.Config{Compress: *compress, Subprotocols: []string{"echo"}}
	var err error
	if *send == "" {
		err = serve(addr, c)
	} else {
		err = talk(addr, c, *send)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "wsecho:", err)
		os.Exit(1)
	}
}

func serve(addr string, c ws.Config) error {
	return weir.ListenAndServe("tcp", addr, layer.Server(func(weir.Transport) weir.Protocol { return &echo{} }, ws.Server(c)))
}

// echo sends every message back as the kind that it was.
type echo struct {
	t weir.Transport
	m ws.Messenger
}

func (e *echo) ConnectionMade(t weir.Transport) {
	e.t = t
	e.m, _ = weir.As[ws.Messenger](t)
}
func (e *echo) DataReceived(p []byte) (int, error)         { return len(p), nil }
func (e *echo) ConnectionLost(error)                       {}
func (e *echo) MessageReceived(k ws.Kind, p []byte) error  { return e.m.SendMessage(k, p) }
func (e *echo) EOFReceived(int) (keepOpen bool, err error) { return false, nil }
func (e *echo) PauseWriting()                              { e.t.PauseReading() }
func (e *echo) ResumeWriting()                             { e.t.ResumeReading() }

// talk sends messages of these lengths, one after another and each in both
// kinds, and compares.
func talk(addr string, c ws.Config, lengths string) error {
	addr, path, _ := strings.Cut(addr, "/")
	c.Path = "/" + path
	p := &client{}
	for _, word := range strings.Split(lengths, ",") {
		n, err := strconv.Atoi(word)
		if err != nil {
			return err
		}
		p.lengths = append(p.lengths, n, n)
	}
	l, err := weir.NewLoop()
	if err != nil {
		return err
	}
	p.loop = l
	l.Connect("tcp", addr, layer.Client(p, ws.Client(c)))
	return errors.Join(l.Run(), p.err, l.Close())
}

type client struct {
	loop    *weir.Loop
	t       weir.Transport
	m       ws.Messenger
	lengths []int // text, binary, text, ...
	at      int
	want    []byte
	done    bool
	err     error
}

func (c *client) ConnectFailed(err *weir.ConnectError) { c.end(err) }

func (c *client) ConnectionMade(t weir.Transport) {
	c.t = t
	c.m, _ = weir.As[ws.Messenger](t)
	c.next()
}

// kind is the kind of the message that is on its way.
func (c *client) kind() ws.Kind {
	if c.at%2 == 0 {
		return ws.Text
	}
	return ws.Binary
}

func (c *client) next() {
	if c.at == len(c.lengths) {
		c.done = true
		_ = c.t.Close() // it always returns nil
		return
	}
	c.want = bytes.Repeat([]byte("weir, "), c.lengths[c.at]/6+1)[:c.lengths[c.at]]
	if err := c.m.SendMessage(c.kind(), c.want); err != nil {
		c.end(err)
	}
}

func (c *client) MessageReceived(k ws.Kind, p []byte) error {
	if k != c.kind() || !bytes.Equal(p, c.want) {
		return fmt.Errorf("%v of %d bytes came back for %v of %d", k, len(p), c.kind(), len(c.want))
	}
	fmt.Println(k, len(p))
	c.at++
	c.next()
	return nil
}

func (c *client) DataReceived(p []byte) (int, error) { return len(p), nil }

func (c *client) ConnectionLost(err error) {
	if err == nil && !c.done {
		err = errors.New("closed before everything came back")
	}
	c.end(err)
}

func (c *client) end(err error) {
	c.err = err
	c.loop.Stop()
}
