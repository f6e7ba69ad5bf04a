// Terminal is a terminal program, on tcell, that downloads over weir and draws a bar.
//
//	go run . -url http://127.0.0.1:8000/file      (d downloads, q ends)
//
// A terminal program in Go has a loop of its own that selects: keys, timers, work. weir is
// one more case: Loop.Guest posts turns to a channel, and the loop runs them. Callbacks of
// connections then run where keys are handled, and may draw.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/gdamore/tcell/v2"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/hosts/internal/download"
)

type app struct {
	url     string
	screen  tcell.Screen
	loop    *weir.Loop
	current *download.Download
	part    float64
	text    string
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
	a := &app{text: "d downloads, q ends"}
	alone := flag.Duration("alone", 0, "download after this time, and measure until then (0: when d is pressed)")
	flag.StringVar(&a.url, "url", "", "what to download, an http URL")
	flag.DurationVar(&a.idle, "idle", 0, "end this time after the download (0: when q is pressed)")
	flag.Parse()
	if err := a.run(*alone); err != nil {
		fmt.Fprintln(os.Stderr, "terminal:", err)
		os.Exit(1)
	}
	if *alone > 0 {
		fmt.Println("closed")
	}
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
	if a.screen, err = tcell.NewScreen(); err != nil {
		return err
	}
	if err := a.screen.Init(); err != nil {
		return err
	}
	defer a.screen.Fini()
	events := make(chan tcell.Event)
	quit := make(chan struct{})
	defer close(quit)
	go a.screen.ChannelEvents(events, quit)
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
	a.dirty = true
	for !a.over {
		a.draw()
		select {
		case turn := <-turns:
			turn()
		case e := <-events:
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

func (a *app) after(d time.Duration, then func()) { a.later, a.then = time.After(d), then }

func (a *app) event(e tcell.Event) {
	switch e := e.(type) {
	case *tcell.EventResize:
		a.screen.Sync()
		a.dirty = true
	case *tcell.EventKey:
		switch {
		case e.Rune() == 'q' || e.Key() == tcell.KeyCtrlC:
			a.over = true
		case e.Rune() == 'd' && a.current == nil:
			a.begin()
		}
	}
}

// draw shows what has changed since the last time, thirty times a second at most.
func (a *app) draw() {
	if !a.dirty {
		return
	}
	a.dirty = false
	a.draws++
	w, _ := a.screen.Size()
	full := int(a.part * float64(max(w-2, 0)))
	a.line(1, strings.Repeat("█", full)+strings.Repeat("░", max(w-2-full, 0)))
	a.line(2, a.text)
	a.screen.Show()
}

func (a *app) line(y int, text string) {
	w, _ := a.screen.Size()
	x := 1
	for _, r := range text {
		a.screen.SetContent(x, y, r, nil, tcell.StyleDefault)
		x++
	}
	for ; x < w; x++ {
		a.screen.SetContent(x, y, ' ', nil, tcell.StyleDefault)
	}
}

func (a *app) show(part float64, text string) { a.part, a.text, a.dirty = part, text, true }

func (a *app) begin() {
	alone := a.ticks.String()
	if a.idle > 0 {
		fmt.Println("alone", alone)
	}
	a.began = time.Now()
	var shown time.Time
	var err error
	a.current, err = download.Start(a.loop, a.url, func(d *download.Download) {
		if now := time.Now(); now.Sub(shown) > time.Second/30 {
			shown = now
			a.show(float64(d.Got)/float64(max(d.Total, 1)), fmt.Sprintf("%d of %d MiB", d.Got>>20, d.Total>>20))
		}
	}, a.done)
	if err != nil {
		a.show(0, err.Error())
	}
}

func (a *app) done(d *download.Download, err error) {
	a.current = nil
	if err != nil {
		a.show(0, err.Error())
		return
	}
	took := time.Since(a.began)
	a.show(1, fmt.Sprintf("downloaded %d MiB in %.1f s", d.Got>>20, took.Seconds()))
	if a.idle == 0 {
		return
	}
	fmt.Printf("downloaded bytes=%d sum=%08x ms=%d draws=%d\n", d.Got, d.Sum, took.Milliseconds(), a.draws)
	fmt.Println("busy", &a.ticks)
	a.ticker.Stop()
	fmt.Println("idle")
	a.after(a.idle, func() { a.over = true })
}
