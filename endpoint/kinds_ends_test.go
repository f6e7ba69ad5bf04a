package endpoint

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// taker writes what it is given, ends its direction, and keeps what comes.
type taker struct {
	send   []byte
	most   int // after so many bytes it aborts; 0: never
	t      weir.Transport
	got    []byte
	eof    bool
	lost   bool
	reason error
}

func (k *taker) ConnectionMade(t weir.Transport) {
	k.t = t
	_, k.reason = t.Write(k.send)
	k.reason = errors.Join(k.reason, t.WriteEOF())
}

func (k *taker) DataReceived(p []byte) (int, error) {
	k.got = append(k.got, p...)
	if k.most > 0 && len(k.got) >= k.most {
		k.t.Abort()
	}
	return len(p), nil
}

func (k *taker) EOFReceived(int) (bool, error) { k.eof = true; return false, nil }

func (k *taker) ConnectionLost(err error) { k.lost, k.reason = true, errors.Join(k.reason, err) }

// TestEnds: what the ends without a peer send, and how they end.
func TestEnds(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789"), 30_000)
	stream := make([]byte, 100_000)
	for i := 0; i < len(stream); i += 7 { // in any pieces it is the same
		randomBytes(stream[i:min(i+7, len(stream))], 7, int64(i))
	}
	if sum := sha256.Sum256(stream[:8]); sum == sha256.Sum256(make([]byte, 8)) {
		t.Error("random bytes are zeros")
	}
	for _, c := range []struct {
		text       string
		send, want []byte
	}{
		{"null", []byte("x"), nil},
		{"discard", big, nil},
		{"echo", nil, nil},
		{"echo", []byte("x"), []byte("x")},
		{"echo", big, big},
		{"text:hello%2Cyou", big, []byte("hello,you")},
		{"zero,bytes=200k", nil, make([]byte, 200<<10)},
		{"random:7,bytes=100000", nil, stream},
	} {
		t.Run(c.text, func(t *testing.T) {
			e, err := Default().Parse(c.text)
			if err != nil {
				t.Fatal(err)
			}
			world := weirtest.NewSim(t, 1)
			k := &taker{send: c.send}
			env := &Env{Loop: world.Host("h").Loop()}
			e.Connect(env, k)
			world.Until("the end", func() bool { return k.lost })
			if !k.eof || k.reason != nil || !bytes.Equal(k.got, c.want) {
				t.Errorf("%d bytes, want %d; end %v, %v", len(k.got), len(c.want), k.eof, k.reason)
			}
		})
	}
	t.Run("zero without end", func(t *testing.T) {
		e, err := Default().Parse("zero")
		if err != nil {
			t.Fatal(err)
		}
		world := weirtest.NewSim(t, 1)
		k := &taker{most: 10 << 20}
		e.Connect(&Env{Loop: world.Host("h").Loop()}, k)
		world.Until("the end", func() bool { return k.lost })
		if len(k.got) < 10<<20 || strings.Trim(string(k.got[:1000]), "\x00") != "" {
			t.Errorf("%d bytes", len(k.got))
		}
	})
}
