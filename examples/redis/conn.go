package main

import (
	"strconv"

	"github.com/weir-io/weir"
)

const (
	// leave is how much of an unfinished command is left to the transport; a
	// longer one is kept here as it arrives.
	leave = 4 << 10
	// keep is how large a buffer may be between commands.
	keep = 64 << 10
)

// conn is one client. DataReceived runs one command and returns; the transport
// calls again while there are more, and stops doing so by itself while the
// client does not read its replies.
type conn struct {
	weir.NopProtocol
	store *store
	t     weir.Transport
	req   request
	held  []byte // an unfinished command
	out   []byte // the reply being made
}

var _ weir.Protocol = (*conn)(nil)

func (c *conn) DataReceived(p []byte) (n int, err error) {
	had := len(c.held)
	b := p
	if had > 0 {
		if need := c.req.need(); need > had {
			p = p[:min(len(p), need-had)]
		}
		c.held = append(c.held, p...)
		b = c.held
	}
	whole, err := c.req.parse(b)
	switch {
	case err != nil:
		c.error("ERR Protocol error: " + err.Error())
		c.flush()
		return len(p), c.t.Close()
	case whole:
		n = c.req.pos - had
		if len(c.req.args) > 0 {
			c.run(c.req.args)
			c.flush()
		}
		c.req.reset()
		c.held = c.held[:0]
		if cap(c.held) > keep {
			c.held = nil
		}
		return n, nil
	case had > 0:
		return len(p), nil
	case len(p) < leave:
		return 0, nil
	}
	c.held = append(c.held, p...)
	return len(p), nil
}

func (c *conn) run(args [][]byte) {
	cmd := c.store.lookup(args[0])
	switch {
	case cmd == nil:
		c.unknown(args)
	case cmd.arity > 0 && len(args) != cmd.arity || len(args) < -cmd.arity:
		c.error("ERR wrong number of arguments for '" + cmd.name + "' command")
	default:
		cmd.run(c, args)
	}
}

func (c *conn) unknown(args [][]byte) {
	text := "ERR unknown command '" + clean(args[0]) + "', with args beginning with: "
	for _, a := range args[1:] {
		if len(text) > 256 {
			break
		}
		text += "'" + clean(a) + "' "
	}
	c.error(text)
}

// clean makes what a client sent safe for a line of a reply.
func clean(b []byte) string {
	b = append([]byte(nil), b[:min(len(b), 128)]...)
	for i, ch := range b {
		if ch == '\r' || ch == '\n' {
			b[i] = ' '
		}
	}
	return string(b)
}

// flush sends the reply; the parts made for one command leave together.
func (c *conn) flush() {
	if len(c.out) == 0 {
		return
	}
	_, _ = c.t.Write(c.out) // a closed transport has told us, or will
	c.out = c.out[:0]
	if cap(c.out) > keep {
		c.out = nil
	}
}

// The replies.

func (c *conn) status(s string) { c.out = append(append(append(c.out, '+'), s...), '\r', '\n') }
func (c *conn) error(s string)  { c.out = append(append(append(c.out, '-'), s...), '\r', '\n') }
func (c *conn) null()           { c.out = append(c.out, "$-1\r\n"...) }
func (c *conn) int(n int64)     { c.number(':', n) }
func (c *conn) array(n int)     { c.number('*', int64(n)) }

func (c *conn) number(kind byte, n int64) {
	c.out = append(c.out, kind)
	c.out = strconv.AppendInt(c.out, n, 10)
	c.out = append(c.out, '\r', '\n')
}

// bulkDirect is the size from which a value is passed to the transport without a copy.
const bulkDirect = 4 << 10

func (c *conn) bulk(b []byte) {
	c.number('$', int64(len(b)))
	if len(b) >= bulkDirect {
		_, _ = c.t.Writev([][]byte{c.out, b, []byte("\r\n")}) // as in flush
		c.out = c.out[:0]
		return
	}
	c.out = append(append(c.out, b...), '\r', '\n')
}

func (c *conn) text(s string) {
	c.number('$', int64(len(s)))
	c.out = append(append(c.out, s...), '\r', '\n')
}
