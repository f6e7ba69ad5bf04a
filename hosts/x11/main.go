// X11 is a program on the X protocol itself, by jezek/xgb, that downloads over weir and
// draws a bar.
//
//	go run . -url http://127.0.0.1:8000/file      (a click downloads, q or closing the window ends)
//
// xgb has a goroutine that reads the X server's socket, so the program's loop selects:
// events of X, timers, and the turns that Loop.Guest posts. Callbacks of connections run
// where events are handled, and may draw.
package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/xproto"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/hosts/internal/download"
)

const (
	width, height = 400, 60
	black, blue   = 0x202020, 0x3584e4
)

type app struct {
	url     string
	x       *xgb.Conn
	window  xproto.Window
	gc      xproto.Gcontext
	closes  xproto.Atom // WM_DELETE_WINDOW
	keys    *xproto.GetKeyboardMappingReply
	first   xproto.Keycode // that keys begins with
	loop    *weir.Loop
	current *download.Download
	part    float64
	dirty   bool
	began   time.Time
	draws   int
	ticks   download.Ticks
	ticker  *time.Ticker
	idle    time.Duration
	later   <-chan time.Time
	then    func()
	over    bool
}

func main() {
	a := &app{}
	alone := flag.Duration("alone", 0, "download after this time, and measure until then (0: on a click)")
	flag.StringVar(&a.url, "url", "", "what to download, an http URL")
	flag.DurationVar(&a.idle, "idle", 0, "end this time after the download (0: when q is pressed or the window is closed)")
	flag.Parse()
	if err := a.run(*alone); err != nil {
		fmt.Fprintln(os.Stderr, "x11:", err)
		os.Exit(1)
	}
	fmt.Println("closed")
}

func (a *app) run(alone time.Duration) (err error) {
	if a.loop, err = weir.NewLoop(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.loop.Close()) }()
	// The program draws and handles keys between turns.
	if err := a.loop.SetTurnLimit(weir.TurnLimit{Time: 2 * time.Millisecond}); err != nil {
		return err
	}
	if err := a.open(); err != nil {
		return err
	}
	defer a.x.Close()
	events := make(chan xgb.Event)
	quit := make(chan struct{})
	defer close(quit)
	go func() {
		defer close(events)
		for {
			e, err := a.x.WaitForEvent()
			if e == nil && err == nil {
				return // the server has gone
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, "x11:", err)
				continue
			}
			select {
			case events <- e:
			case <-quit:
				return
			}
		}
	}()
	turns := make(chan func())
	stop, err := a.loop.Guest(func(turn func()) {
		select {
		case turns <- turn:
		case <-quit:
		}
	})
	if err != nil {
		return err
	}
	defer stop()
	a.ticker = time.NewTicker(16 * time.Millisecond)
	defer a.ticker.Stop()
	if alone > 0 {
		a.after(alone, a.begin)
	}
	for !a.over {
		a.draw()
		select {
		case turn := <-turns:
			turn()
		case e, ok := <-events:
			if !ok {
				return errors.New("the X server closed the connection")
			}
			a.event(e)
		case <-a.ticker.C:
			a.ticks.Tick()
		case <-a.later:
			a.later = nil
			a.then()
		}
	}
	return nil
}

func (a *app) open() error {
	x, err := xgb.NewConn()
	if err != nil {
		return err
	}
	a.x = x
	screen := xproto.Setup(x).DefaultScreen(x)
	if a.window, err = xproto.NewWindowId(x); err != nil {
		return err
	}
	if err := xproto.CreateWindowChecked(x, screen.RootDepth, a.window, screen.Root, 0, 0, width, height, 0,
		xproto.WindowClassInputOutput, screen.RootVisual, xproto.CwBackPixel|xproto.CwEventMask,
		[]uint32{black, xproto.EventMaskExposure | xproto.EventMaskButtonPress | xproto.EventMaskKeyPress | xproto.EventMaskStructureNotify}).Check(); err != nil {
		return err
	}
	title := []byte("weir in X11")
	xproto.ChangeProperty(x, xproto.PropModeReplace, a.window, xproto.AtomWmName, xproto.AtomString, 8, uint32(len(title)), title)
	// A window manager asks to close the window, instead of destroying it.
	protocols, err := atom(x, "WM_PROTOCOLS")
	if err != nil {
		return err
	}
	if a.closes, err = atom(x, "WM_DELETE_WINDOW"); err != nil {
		return err
	}
	xproto.ChangeProperty(x, xproto.PropModeReplace, a.window, protocols, xproto.AtomAtom, 32, 1,
		binary.NativeEndian.AppendUint32(nil, uint32(a.closes)))
	if err := a.readKeys(); err != nil {
		return err
	}
	if a.gc, err = xproto.NewGcontextId(x); err != nil {
		return err
	}
	xproto.CreateGC(x, a.gc, xproto.Drawable(a.window), xproto.GcForeground, []uint32{blue})
	return xproto.MapWindowChecked(x, a.window).Check()
}

func atom(x *xgb.Conn, name string) (xproto.Atom, error) {
	r, err := xproto.InternAtom(x, false, uint16(len(name)), name).Reply()
	if err != nil {
		return 0, err
	}
	return r.Atom, nil
}

// readKeys asks for what is on the keys.
func (a *app) readKeys() error {
	s := xproto.Setup(a.x)
	keys, err := xproto.GetKeyboardMapping(a.x, s.MinKeycode, byte(s.MaxKeycode-s.MinKeycode+1)).Reply()
	a.keys, a.first = keys, s.MinKeycode
	return err
}

// pressed reports whether a key has a letter, which is its own keysym.
func (a *app) pressed(key xproto.Keycode, letter xproto.Keysym) bool {
	n := int(a.keys.KeysymsPerKeycode)
	at := (int(key) - int(a.first)) * n
	return at >= 0 && at+n <= len(a.keys.Keysyms) && slices.Contains(a.keys.Keysyms[at:at+n], letter)
}

func (a *app) after(d time.Duration, then func()) { a.later, a.then = time.After(d), then }

func (a *app) event(e xgb.Event) {
	switch e := e.(type) {
	case xproto.ExposeEvent:
		a.dirty = true
	case xproto.ButtonPressEvent:
		if a.current == nil {
			a.begin()
		}
	case xproto.KeyPressEvent:
		if a.pressed(e.Detail, 'q') {
			a.over = true
		}
	case xproto.ClientMessageEvent:
		if e.Format == 32 && e.Data.Data32[0] == uint32(a.closes) {
			a.over = true
		}
	case xproto.DestroyNotifyEvent:
		a.over = true
	}
}

// draw draws the bar if it has changed.
func (a *app) draw() {
	if !a.dirty {
		return
	}
	a.dirty = false
	a.draws++
	full := uint16(a.part * (width - 20))
	xproto.ClearArea(a.x, false, a.window, int16(10+full), 20, 0, 20)
	xproto.PolyFillRectangle(a.x, xproto.Drawable(a.window), a.gc, []xproto.Rectangle{{X: 10, Y: 20, Width: full, Height: 20}})
}

func (a *app) begin() {
	fmt.Println("alone", &a.ticks)
	a.began = time.Now()
	var shown time.Time
	var err error
	a.current, err = download.Start(a.loop, a.url, func(d *download.Download) {
		if now := time.Now(); now.Sub(shown) > time.Second/30 {
			shown = now
			a.part, a.dirty = float64(d.Got)/float64(max(d.Total, 1)), true
		}
	}, a.done)
	if err != nil {
		fmt.Println("failed", err)
	}
}

func (a *app) done(d *download.Download, err error) {
	a.current = nil
	if err != nil {
		fmt.Println("failed", err)
		return
	}
	a.part, a.dirty = 1, true
	fmt.Printf("downloaded bytes=%d sum=%08x ms=%d draws=%d\n", d.Got, d.Sum, time.Since(a.began).Milliseconds(), a.draws)
	fmt.Println("busy", &a.ticks)
	if a.idle > 0 {
		a.ticker.Stop()
		fmt.Println("idle")
		a.after(a.idle, func() { a.over = true })
	}
}
