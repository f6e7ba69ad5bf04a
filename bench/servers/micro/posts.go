package main

import (
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/weir-io/weir"

	"github.com/weir-io/weir/bench/internal/side"
)

const awakePosts = 200_000

// running is a loop on a goroutine of its own.
type running struct {
	*weir.Loop
	ended chan struct{}
}

func runLoop() *running {
	r := &running{newLoop(), make(chan struct{})}
	go func() {
		side.Check(r.Run())
		close(r.ended)
	}()
	return r
}

func (r *running) end() {
	r.Stop()
	<-r.ended
	side.Check(r.Close())
}

func (r *running) post(f func()) {
	_, err := r.Post(f)
	side.Check(err)
}

// hold keeps the loop inside one callback until release is called: it does not
// wait for I/O, and no one else touches its queue.
func (r *running) hold() (release func()) {
	in, out := make(chan struct{}), make(chan struct{})
	r.post(func() {
		close(in)
		<-out
	})
	<-in
	return func() { close(out) }
}

// postsAwake posts n callbacks while the loop is awake and lets them run.
func postsAwake(n int) time.Duration {
	l := runLoop()
	defer l.end()
	ran := 0
	count := func() { ran++ }
	release := l.hold()
	began := time.Now()
	for range n {
		l.post(count)
	}
	took := time.Since(began)
	done := make(chan struct{})
	l.post(func() { close(done) })
	release()
	<-done
	if ran != n {
		panic("posts were lost")
	}
	return took
}

func posts(f figures) {
	runtime.GC()
	// Short batches, so that most contain no garbage collection of the posts.
	const batch, batches = 2000, 51
	var took []float64
	for range batches {
		took = append(took, float64(postsAwake(batch))/batch)
	}
	slices.Sort(took)
	f["post, loop awake, uncontended"] = took[batches/2]
	streamOfPosts(f, "post, one goroutine, loop taking them", 1)
	streamOfPosts(f, "post, two goroutines, loop taking them", 2)
	channelStream(f, "channel of 1024, one goroutine", 1)
	channelStream(f, "channel of 1024, two goroutines", 2)
	pingPongPosts(f)
	pingPongChannel(f)
}

// streamOfPosts is how long a callback takes from post to run, end to end, when
// they come one after another.
func streamOfPosts(f figures, name string, goroutines int) {
	const each = 100_000
	l := runLoop()
	defer l.end()
	done := make(chan struct{})
	ran, total := 0, each*goroutines
	count := func() {
		if ran++; ran == total {
			close(done)
		}
	}
	began := time.Now()
	for range goroutines {
		go func() {
			for range each {
				l.post(count)
			}
		}()
	}
	<-done
	f.per(name, began, total)
}

func channelStream(f figures, name string, goroutines int) {
	const each = 100_000
	ch := make(chan func(), 1024)
	ran, total := 0, each*goroutines
	count := func() { ran++ }
	began := time.Now()
	for range goroutines {
		go func() {
			for range each {
				ch <- count
			}
		}()
	}
	for range total {
		(<-ch)()
	}
	f.per(name, began, total)
}

// pingPongPosts is from a post to a sleeping loop until its callback has posted
// back to another: two wake-ups.
func pingPongPosts(f figures) {
	const n = 10_000
	a, b := runLoop(), runLoop()
	defer a.end()
	defer b.end()
	left := n
	done := make(chan struct{})
	var ping, pong func()
	ping = func() { b.post(pong) }
	pong = func() {
		if left--; left == 0 {
			close(done)
			return
		}
		a.post(ping)
	}
	began := time.Now()
	a.post(ping)
	<-done
	f.per("there and back between two sleeping loops", began, n)
}

func pingPongChannel(f figures) {
	const n = 10_000
	a, b := make(chan int), make(chan int)
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		for v := range a {
			b <- v
		}
		wg.Done()
	}()
	began := time.Now()
	for i := range n {
		a <- i
		<-b
	}
	f.per("there and back between two goroutines by channels", began, n)
	close(a)
	wg.Wait()
}
