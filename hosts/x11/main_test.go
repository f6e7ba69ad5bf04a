package main

import (
	"os"
	"os/exec"
	"testing"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/xproto"

	"github.com/weir-io/weir/hosts/internal/hosttest"
)

// TestWindow: a program on the X protocol downloads while its timer ticks and its bar
// moves, and then nothing wakes it.
func TestWindow(t *testing.T) {
	display := hosttest.Display(t)
	n := hosttest.Size(t)
	cmd := exec.Command(hosttest.Build(t, "."), hosttest.Args(hosttest.Serve(t), n)...)
	cmd.Env = append(os.Environ(), "DISPLAY="+display)
	hosttest.Start(t, cmd).Watch(n, func(downloaded string) {
		hosttest.Screenshot(t, display, "x11")
		if ms, n := hosttest.Field(t, downloaded, "ms"), hosttest.Field(t, downloaded, "draws"); n < 3 || n < ms/300 {
			t.Errorf("the bar was drawn %.0f times in %.0f ms", n, ms)
		}
	})
}

// TestEnd: the key q ends the program, and so does a window manager's wish.
func TestEnd(t *testing.T) {
	display := hosttest.Display(t)
	program := hosttest.Build(t, ".")
	x, err := xgb.NewConnDisplay(display)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	root := xproto.Setup(x).DefaultScreen(x).Root
	if err := xproto.ChangeWindowAttributesChecked(x, root, xproto.CwEventMask,
		[]uint32{xproto.EventMaskSubstructureNotify}).Check(); err != nil {
		t.Fatal(err)
	}
	a := &app{x: x}
	if err := a.readKeys(); err != nil {
		t.Fatal(err)
	}
	key := func(letter xproto.Keysym) xproto.Keycode {
		for k := int(a.first); k < 256; k++ {
			if a.pressed(xproto.Keycode(k), letter) {
				return xproto.Keycode(k)
			}
		}
		t.Fatalf("no key has the keysym %#x", letter)
		return 0
	}
	for name, send := range map[string]func(w xproto.Window){
		"key": func(w xproto.Window) {
			for _, letter := range []xproto.Keysym{'p', 'q'} {
				e := xproto.KeyPressEvent{Detail: key(letter), Root: root, Event: w, SameScreen: true}
				xproto.SendEvent(x, false, w, xproto.EventMaskKeyPress, string(e.Bytes()))
			}
		},
		"window manager": func(w xproto.Window) {
			protocols, err := atom(x, "WM_PROTOCOLS")
			if err != nil {
				t.Fatal(err)
			}
			asked, err := xproto.GetProperty(x, false, w, protocols, xproto.AtomAtom, 0, 1).Reply()
			if err != nil {
				t.Fatal(err)
			}
			closes, err := atom(x, "WM_DELETE_WINDOW")
			if err != nil || asked.ValueLen != 1 || xgb.Get32(asked.Value) != uint32(closes) {
				t.Fatalf("the window's protocols are %v, %v, want atom %d", asked.Value, err, closes)
			}
			e := xproto.ClientMessageEvent{
				Format: 32, Window: w, Type: protocols,
				Data: xproto.ClientMessageDataUnionData32New([]uint32{uint32(closes), 0, 0, 0, 0}),
			}
			xproto.SendEvent(x, false, w, 0, string(e.Bytes()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(program, "-url", "http://127.0.0.1:1/")
			cmd.Env = append(os.Environ(), "DISPLAY="+display)
			p := hosttest.Start(t, cmd)
			for {
				e, err := x.WaitForEvent()
				if err != nil {
					t.Fatal(err)
				}
				if e, ok := e.(xproto.MapNotifyEvent); ok {
					send(e.Window)
					break
				}
				if e == nil {
					t.Fatalf("the X server has gone:\n%s", p.Output())
				}
			}
			p.Line("closed")
			p.End()
		})
	}
}
