package layer_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
)

// joiner keeps what crypto/tls writes, so that many records go in one segment.
type joiner struct {
	net.Conn
	keep    bool
	records [][]byte
}

func (j *joiner) Write(p []byte) (int, error) {
	if j.keep {
		j.records = append(j.records, bytes.Clone(p))
		return len(p), nil
	}
	return j.Conn.Write(p)
}

// records returns a connection that has finished its handshake, and the records
// of messages.
func records(t *testing.T, conn net.Conn, cfg *tls.Config, messages ...string) ([][]byte, error) {
	t.Helper()
	j := &joiner{Conn: conn}
	c := tls.Client(j, cfg)
	if err := c.Handshake(); err != nil {
		return nil, err
	}
	j.keep = true
	for _, m := range messages {
		if _, err := io.WriteString(c, m); err != nil {
			return nil, err
		}
	}
	return j.records, nil
}

// TestTLSRecordsApart: a protocol that appends to the slice it is lent does not
// change the next record, however many came at once.
func TestTLSRecordsApart(t *testing.T) {
	server, client := tlsPair(t, tls.VersionTLS13)
	r := newRig(t)
	e := &layertest.Ear{}
	e.OnData = func(p []byte) int {
		_ = append(p, "of another"...)
		return len(p)
	}
	addr := r.listen(func() *layertest.Ear { return e }, layer.TLSServer(server))
	var messages []string
	want := ""
	for i := range 10 {
		messages = append(messages, fmt.Sprintf("message %d;", i))
		want += messages[i]
	}
	r.peer(func() error {
		conn := r.dial(addr)
		all, err := records(t, conn, client, messages...)
		if err != nil {
			return err
		}
		_, err = conn.Write(bytes.Join(all, nil))
		return err
	})
	r.until("the messages", func() bool { return len(e.Got) >= len(want) })
	if string(e.Got) != want {
		t.Errorf("got %q", e.Got)
	}
	if len(e.Sizes) != len(messages) {
		t.Errorf("%d calls for %d records", len(e.Sizes), len(messages))
	}
}

// TestTLSBadRecord: records before a bad one are delivered, writing meanwhile
// does no harm, and the reason names the record, whether the records come one
// by one or at once (behaviours 52 and 92).
func TestTLSBadRecord(t *testing.T) {
	server, client := tlsPair(t, tls.VersionTLS13)
	for name, together := range map[string]bool{"one by one": false, "together": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			e := &layertest.Ear{}
			e.OnData = func(p []byte) int {
				if _, err := e.Tr.Write(make([]byte, 20<<10)); err != nil {
					t.Errorf("Write after %q: %v", p, err)
				}
				return len(p)
			}
			addr := r.listen(func() *layertest.Ear { return e }, layer.TLSServer(server))
			var all [][]byte
			var conn net.Conn
			r.peer(func() (err error) {
				conn = r.dial(addr)
				all, err = records(t, conn, client, "first", "second", "third")
				return err
			})
			last := all[len(all)-1]
			last[len(last)-1] ^= 1
			if together {
				all = [][]byte{bytes.Join(all, nil)}
			}
			for i, p := range all {
				if _, err := conn.Write(p); err != nil {
					t.Fatal(err)
				}
				if i < len(all)-1 {
					r.until("a record", func() bool { return len(e.Sizes) > i })
				}
			}
			r.until("the end", e.Over)
			if string(e.Got) != "firstsecond" {
				t.Errorf("got %q", e.Got)
			}
			var le *layer.Error
			var alert tls.AlertError
			if !errors.As(e.Err, &le) || le.Layer != "tls" || errors.As(e.Err, &alert) {
				t.Errorf("lost with %T %v", e.Err, e.Err)
			}
		})
	}
}
