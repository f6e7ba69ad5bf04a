package endpoint

import (
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
)

// eofWait is eof-wait='s for what connects over a network without half-close.
const eofWait = 5 * time.Second

func eofWaitDoc(doc string) OptionDoc {
	return OptionDoc{Name: "eof-wait", Type: Duration, Doc: "after the input has ended, close both directions when nothing has arrived for this long; " + doc}
}

// awaitsReply is the layer under which a connection that cannot end one direction alone seems
// to: the end of our input is not told, and the connection ends when its peer ends it, or has
// been silent for wait. over is called when it is lost; nil: nothing is.
func awaitsReply(name string, wait time.Duration, over func()) layer.Layer {
	return func(a layer.Above) layer.Above {
		return layer.Above{Failed: a.Failed, Make: func(weir.Transport) weir.Protocol {
			w := &awaiting{wait: wait, over: over}
			return w.Init(w, name, a)
		}}
	}
}

type awaiting struct {
	layer.Base
	wait  time.Duration
	over  func()
	timer *weir.Timer // nil: our input has not ended
	moved time.Time   // when the peer was heard last, or could not be
}

var (
	_ weir.Protocol = (*awaiting)(nil)
	_ weir.Carrier  = (*awaiting)(nil)
)

func (w *awaiting) CanCloseWrite() bool { return true }

// CloseWrite implements weir.Carrier: everything has been written, and the wait begins.
func (w *awaiting) CloseWrite() error {
	loop := w.Below().Loop()
	w.moved = loop.Now()
	w.timer = loop.After(w.wait, w.look)
	return nil
}

func (w *awaiting) look() {
	now := w.Below().Loop().Now()
	if u, ok := weir.As[interface{ Undelivered() int }](w.Below()); w.Paused() || w.Below().Buffered() > 0 || ok && u.Undelivered() > 0 {
		w.moved = now // the silence is not the peer's: it has not got everything, or we do not read
	}
	if left := w.wait - now.Sub(w.moved); left > 0 {
		w.timer.Set(left)
		return
	}
	w.End(nil)
}

func (w *awaiting) DataReceived(p []byte) (int, error) {
	if w.timer != nil {
		w.moved = w.Below().Loop().Now()
	}
	return w.Base.DataReceived(p)
}

// EOFReceived implements weir.EOFReceiver: the peer has ended both directions, so that nothing
// reaches it any more.
func (w *awaiting) EOFReceived(unused int) (bool, error) {
	w.stop()
	return w.Base.EOFReceived(unused)
}

func (w *awaiting) ConnectionLost(err error) {
	w.stop()
	if w.over != nil {
		w.over()
	}
	w.Base.ConnectionLost(err)
}

func (w *awaiting) stop() {
	if w.timer != nil {
		w.timer.Stop()
	}
}
