package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
	"github.com/weir-io/weir/task/stream"
	"github.com/weir-io/weir/weirtest"
)

// site has pages by path; a missing page is refused, and "hang" never answers.
var site = map[string]string{
	"/":        `<a href="/a">a</a> <A class=x HREF='b#top'>b</A> <a href="http://elsewhere.test/">no</a> <a href=missing>m</a>`,
	"/a":       `<a href="/">back</a> <a href="/deep/c">c</a>`,
	"/b":       strings.Repeat("words ", 10_000) + `<a href="/a">a</a>`,
	"/deep/c":  `<a href="../deep/d">d</a>`,
	"/deep/d":  `the end`,
	"/hanging": `<a href="/hang">never</a> <a href="/b">b</a>`,
}

// crawlSim crawls the site in the simulator.
func crawlSim(t *testing.T, seed uint64, start string, within, each time.Duration) (pages []string, took time.Duration, err error) {
	weirtest.CheckLeaks(t)
	s := weirtest.NewSim(t, seed, weirtest.WithFaults(weirtest.Faults{CutRead: 0.3, CutWire: 0.3, Jitter: 20 * time.Millisecond}))
	server, client := s.Host("server").Loop(), s.Host("client").Loop()
	conns := task.New(future.On(server), task.Independent(func(*task.Task, error) {}))
	root := task.New(future.On(client))
	if _, err := server.Listen("tcp", ":80", stream.Factory(conns, serveSite)); err != nil {
		t.Fatal(err)
	}
	c := &crawl{loop: client, each: each, places: task.NewSemaphore(2), seen: map[string]bool{}}
	root.Go("crawl", func(t *task.Task) error {
		var got []page
		got, err = c.from(t, &url.URL{Scheme: "http", Host: "server", Path: start}, within)
		took = s.Now()
		for _, p := range got {
			pages = append(pages, p.String())
		}
		return nil
	})
	if e := s.Run(func() bool { return root.Tasks() == 0 }); e != nil {
		t.Fatalf("%v\n%s", e, root)
	}
	if n := c.places.Free(); n != 2 {
		t.Errorf("%d places are free", n)
	}
	if e := errors.Join(root.Close(), conns.Close()); e != nil {
		t.Error(e)
	}
	slices.Sort(pages)
	return pages, took, err
}

// serveSite answers one request.
func serveSite(t *task.Task, c *stream.Stream) error {
	request, err := c.ReadUntil(t, []byte("\r\n\r\n"), 1000)
	if err != nil {
		return err
	}
	path := strings.Fields(string(request))[1]
	if path == "/hang" {
		_, err := c.Read(t, make([]byte, 1))
		return err
	}
	body, ok := site[path]
	if !ok {
		_, err = c.Write([]byte("HTTP/1.0 404 Not Found\r\n\r\n"))
		return err
	}
	return c.Send(t, fmt.Appendf(nil, "HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
}

func TestCrawl(t *testing.T) {
	for seed := range uint64(10) {
		pages, _, err := crawlSim(t, seed+1, "/", time.Minute, 10*time.Second)
		want := []string{`http://server/missing: the server says "HTTP/1.0 404 Not Found"`}
		for path, links := range map[string]int{"/": 3, "/a": 2, "/b": 1, "/deep/c": 1, "/deep/d": 0} {
			want = append(want, fmt.Sprintf("http://server%s: %d bytes, %d links", path, len(site[path]), links))
		}
		slices.Sort(want)
		if !slices.Equal(pages, want) || err != nil {
			t.Errorf("%v\n%s", err, strings.Join(pages, "\n"))
		}
	}
}

// A page that hangs costs only its own time.
func TestPageTimeout(t *testing.T) {
	pages, took, err := crawlSim(t, 1, "/hanging", time.Minute, 3*time.Second)
	if err != nil || len(pages) != 8 || !slices.Contains(pages, "http://server/hang: "+future.ErrTimeout.Error()) {
		t.Errorf("%v\n%s", err, strings.Join(pages, "\n"))
	}
	if took < 3*time.Second || took > 6*time.Second {
		t.Errorf("took %v", took)
	}
}

// The deadline ends the crawl, with the results so far.
func TestDeadline(t *testing.T) {
	pages, took, err := crawlSim(t, 1, "/hanging", 10*time.Second, time.Hour)
	if !errors.Is(err, future.ErrTimeout) || took != 10*time.Second {
		t.Errorf("%v after %v", err, took)
	}
	if len(pages) < 2 {
		t.Errorf("only %q", pages)
	}
}

// The same against net/http, on sockets.
func TestNetHTTP(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := site[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, body)
	}))
	defer server.Close()
	start, err := url.Parse(server.URL + "/")
	if err != nil {
		t.Fatal(err)
	}
	l, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	var pages []page
	err = task.Run(l, func(t *task.Task) (err error) {
		c := &crawl{loop: l, each: time.Minute, places: task.NewSemaphore(4), seen: map[string]bool{}}
		pages, err = c.from(t, start, time.Minute)
		return err
	})
	if err != nil || len(pages) != 6 {
		t.Errorf("%v\n%v", err, pages)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
