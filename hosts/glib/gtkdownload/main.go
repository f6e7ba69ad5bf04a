// Gtkdownload is a GTK 3 window with a button that downloads over weir, and a bar that
// shows how far it is.
//
//	go run ./gtkdownload -url http://127.0.0.1:8000/file
//
// GTK owns the thread and calls weir. The loop's callbacks change widgets as any other
// callback of GTK does.
package main

// #cgo pkg-config: gtk+-3.0
// #include <stdlib.h>
// #include "window.h"
import "C"

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/cgo"
	"time"
	"unsafe"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/hosts/glib"
	"github.com/weir-io/weir/hosts/internal/download"
)

// GTK wants the process's first thread on some systems.
func init() { runtime.LockOSThread() }

type app struct {
	loop    *weir.Loop
	url     string
	alone   time.Duration
	idle    time.Duration
	current *download.Download
	began   time.Time
	shown   time.Time
	ticks   download.Ticks
	draws   int
	then    func() // what window_after calls
	window  *C.window
}

func main() {
	var a app
	priority := flag.Int("priority", glib.DefaultPriority, "the priority of weir's source in GLib")
	flag.StringVar(&a.url, "url", "", "what to download, an http URL")
	flag.DurationVar(&a.alone, "alone", 0, "press the button after this time, and measure until then (0: wait for a click)")
	flag.DurationVar(&a.idle, "idle", 0, "end this time after the download (0: when the window is closed)")
	flag.Parse()
	if err := a.run(*priority); err != nil {
		fmt.Fprintln(os.Stderr, "gtkdownload:", err)
		os.Exit(1)
	}
	fmt.Println("closed")
}

func (a *app) run(priority int) error {
	loop, err := weir.NewLoop()
	if err != nil {
		return err
	}
	a.loop = loop
	handle := cgo.NewHandle(a)
	defer handle.Delete()
	a.window = C.window_open(C.uintptr_t(handle), C.int(a.alone.Milliseconds()))
	if a.window == nil {
		return errors.Join(errors.New("there is no display: set DISPLAY or WAYLAND_DISPLAY"), loop.Close())
	}
	guest, err := glib.Attach(loop, glib.WithPriority(priority))
	if err != nil {
		return errors.Join(err, loop.Close())
	}
	C.window_every(a.window, 16)
	C.window_run(a.window) // and the window is gone
	a.window = nil
	guest.Close()
	return loop.Close()
}

func (a *app) clicked() {
	if a.current != nil {
		a.current.Stop()
		return
	}
	fmt.Println("alone", &a.ticks)
	a.began, a.draws = time.Now(), 0
	var err error
	a.current, err = download.Start(a.loop, a.url, a.progress, a.done)
	if err != nil {
		a.show(0, err.Error())
		fmt.Println("failed", err)
	}
}

// progress is called for every few kilobytes; a person sees thirty changes a second.
func (a *app) progress(d *download.Download) {
	if now := time.Now(); now.Sub(a.shown) >= time.Second/30 {
		a.shown = now
		a.show(float64(d.Got)/float64(max(d.Total, 1)), fmt.Sprintf("%d of %d MiB", d.Got>>20, d.Total>>20))
	}
}

func (a *app) done(d *download.Download, err error) {
	a.current = nil
	switch {
	case errors.Is(err, download.ErrStopped):
		a.show(0, "Stopped.")
		return
	case err != nil:
		a.show(0, err.Error())
		fmt.Println("failed", err)
		return
	}
	took := time.Since(a.began)
	a.show(1, fmt.Sprintf("%d MiB in %.1f s", d.Got>>20, took.Seconds()))
	fmt.Printf("downloaded bytes=%d sum=%08x ms=%d draws=%d\n", d.Got, d.Sum, took.Milliseconds(), a.draws)
	fmt.Println("busy", &a.ticks)
	if a.idle == 0 {
		return
	}
	C.window_every_stop(a.window)
	// The last picture is drawn first.
	a.after(500*time.Millisecond, func() {
		fmt.Println("idle")
		a.after(a.idle, func() { C.window_quit(a.window) })
	})
}

func (a *app) after(d time.Duration, then func()) {
	a.then = then
	C.window_after(a.window, C.uint(d.Milliseconds()))
}

func (a *app) show(part float64, text string) {
	if a.window == nil {
		return
	}
	s := C.CString(text)
	defer C.free(unsafe.Pointer(s))
	C.window_progress(a.window, C.double(part), s)
}

func appOf(handle C.uintptr_t) *app { return cgo.Handle(handle).Value().(*app) }

//export gtkClicked
func gtkClicked(handle C.uintptr_t) { appOf(handle).clicked() }

//export gtkTicked
func gtkTicked(handle C.uintptr_t) { appOf(handle).ticks.Tick() }

//export gtkDrawn
func gtkDrawn(handle C.uintptr_t) { appOf(handle).draws++ }

//export gtkLater
func gtkLater(handle C.uintptr_t) { appOf(handle).then() }
