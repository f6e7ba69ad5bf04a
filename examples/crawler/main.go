// Crawler follows the links of a site, several pages at once, until none are
// left or its time is over.
//
//	go run ./examples/crawler -within 5s http://127.0.0.1:8080/
//
// All pages are tasks of one scope, whose deadline is the whole crawl's; each
// page has a shorter one inside it. When the scope ends, no connection is left.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
)

func main() {
	within := flag.Duration("within", 10*time.Second, "how long the crawl may take")
	each := flag.Duration("each", 2*time.Second, "how long a page may take")
	atOnce := flag.Int("at-once", 8, "how many pages are fetched at once")
	flag.Parse()
	start, err := url.Parse(flag.Arg(0))
	if err != nil || flag.NArg() != 1 || start.Scheme != "http" {
		fmt.Fprintln(os.Stderr, "usage: crawler [flags] http://host:port/")
		os.Exit(2)
	}
	if err := run(start, *within, *each, *atOnce); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(start *url.URL, within, each time.Duration, atOnce int) error {
	l, err := weir.NewLoop()
	if err != nil {
		return err
	}
	err = task.Run(l, func(t *task.Task) error {
		c := &crawl{loop: l, each: each, places: task.NewSemaphore(atOnce), seen: map[string]bool{}}
		pages, err := c.from(t, start, within)
		if len(pages) == 1 && pages[0].err != nil { // not even the first
			return errors.New(pages[0].String())
		}
		for _, p := range pages {
			fmt.Println(p)
		}
		return err
	})
	return errors.Join(err, l.Close())
}

// page is the result of one page.
type page struct {
	url   string
	bytes int
	links int
	err   error
}

func (p page) String() string {
	if p.err != nil {
		return fmt.Sprintf("%s: %v", p.url, p.err)
	}
	return fmt.Sprintf("%s: %d bytes, %d links", p.url, p.bytes, p.links)
}

// crawl is one crawl. Between two waits a task is alone: nothing here is locked.
type crawl struct {
	loop   *weir.Loop
	each   time.Duration
	places *task.Semaphore
	seen   map[string]bool
	pages  []page
}

// from crawls everything that start leads to on its host. If that takes too
// long, it returns what it has, and the timeout.
func (c *crawl) from(t *task.Task, start *url.URL, within time.Duration) ([]page, error) {
	err := t.With(func(sc *task.Scope) error {
		c.visit(sc, start)
		return nil
	}, task.Within(within), task.Named("pages"))
	return c.pages, err
}

// visit starts a task for a page that is new.
func (c *crawl) visit(sc *task.Scope, u *url.URL) {
	if c.seen[u.String()] {
		return
	}
	c.seen[u.String()] = true
	sc.Go(u.Path, func(t *task.Task) error {
		if err := c.places.Acquire(t); err != nil {
			return err
		}
		defer c.places.Release()
		var body []byte
		err := t.With(func(*task.Scope) (err error) {
			body, err = fetch(t, c.loop, u)
			return err
		}, task.Within(c.each))
		if future.OnlyCanceled(err) {
			return err // the crawl is over, not this page
		}
		var links []*url.URL
		if err == nil {
			links = linksOf(u, body)
		}
		c.pages = append(c.pages, page{u.String(), len(body), len(links), err})
		for _, link := range links {
			c.visit(sc, link)
		}
		return nil
	})
}
