package contract

import (
	"errors"
	"testing"
	"time"

	"github.com/weir-io/weir"
)

// A transport without a protocol ends too, and so does its loop.
func TestNoProtocol(t *testing.T) {
	l := newLoop(t)
	none := func(weir.Transport) weir.Protocol {
		return made(func(t weir.Transport) { t.SetProtocol(nil); t.Abort() })
	}
	_, peer, err := l.SocketPair(none, func(weir.Transport) weir.Protocol {
		return weir.DataFunc(func(p []byte) (int, error) { return len(p), nil })
	})
	if err != nil {
		t.Skip(err)
	}
	for peer.Protocol() != nil {
		if err := l.Turn(time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if n := l.Connections(); n != 0 {
		t.Errorf("%d connections are open", n)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := l.ListenFD(0, none); !errors.Is(err, weir.ErrLoopClosed) {
		t.Errorf("ListenFD on a closed loop: %v", err)
	}
}

// made is a protocol with only a ConnectionMade.
type made func(weir.Transport)

func (f made) ConnectionMade(t weir.Transport)        { f(t) }
func (made) DataReceived(p []byte) (n int, err error) { return len(p), nil }
func (made) ConnectionLost(error)                     {}
