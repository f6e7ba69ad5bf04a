package curl_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/hosts/curl"
	"github.com/weir-io/weir/hosts/internal/hosttest"
)

func newLoop(t *testing.T, backend weir.LoopOption) (*weir.Loop, *curl.Multi) {
	t.Helper()
	stop := func() {}
	loop, err := weir.NewLoop(backend, weir.WithErrorHandler(func(err error) { t.Error(err); stop() }))
	if err != nil {
		t.Fatal(err)
	}
	stop = loop.Stop
	m, err := curl.New(loop)
	if err != nil {
		t.Fatal(err)
	}
	late := loop.After(100*time.Second, func() { t.Error("the transfers stopped"); loop.Stop() })
	t.Cleanup(func() {
		late.Stop()
		_ = loop.Close()
	})
	return loop, m
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL + "/"
}

// TestMany: a hundred thousand replies arrive over libcurl's sockets in a weir loop, with no
// polling (R14), on the first backend; on the others a few thousand do.
func TestMany(t *testing.T) {
	messages := 100_000
	hosttest.Backends(t, func(t *testing.T, backend weir.LoopOption) {
		if testing.Short() {
			messages = 5_000
		}
		many(t, backend, messages)
		messages = 5_000
	})
}

func many(t *testing.T, backend weir.LoopOption, messages int) {
	t.Helper()
	const parallel = 16
	url := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "reply ", r.URL.Path[1:]) })
	loop, m := newLoop(t, backend)
	begun, done := 0, 0
	var next func()
	next = func() {
		if begun == messages {
			return
		}
		want := fmt.Sprint("reply ", begun)
		var got []byte
		_, err := m.Get(url+fmt.Sprint(begun), curl.Handler{
			Body: func(p []byte) { got = append(got, p...) },
			Done: func(status int, err error) {
				if status != 200 || err != nil || string(got) != want {
					t.Errorf("status %d, %v, %q, want %q", status, err, got, want)
					loop.Stop()
				}
				if done++; done == messages {
					loop.Stop()
				}
				next()
			},
		})
		if err != nil {
			t.Error(err)
		}
		begun++
	}
	for range parallel {
		next()
	}
	if err := loop.Run(); err != nil {
		t.Fatal(err)
	}
	if done != messages {
		t.Fatalf("%d replies, want %d", done, messages)
	}
	c := m.Counts()
	t.Logf("%+v", c)
	if c.Actions > 5*messages {
		t.Errorf("libcurl was called %d times for %d replies", c.Actions, messages)
	}
	// The connections stay, and nothing wakes libcurl for them.
	loop.After(time.Second, loop.Stop)
	if err := loop.Run(); err != nil {
		t.Fatal(err)
	}
	if n := m.Counts().Actions - c.Actions; n > 3 {
		t.Errorf("libcurl was called %d times in a second in which nothing was to be done", n)
	}
}

// TestPanic: a panic in a Handler does not unwind through libcurl: it is reported, and the
// other transfers go on.
func TestPanic(t *testing.T) { hosttest.Backends(t, testPanic) }

func testPanic(t *testing.T, backend weir.LoopOption) {
	t.Helper()
	url := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "reply") })
	var panics []any
	loop, err := weir.NewLoop(backend, weir.WithErrorHandler(func(err error) {
		var p *weir.PanicError
		if !errors.As(err, &p) {
			t.Error(err)
			return
		}
		panics = append(panics, p.Value)
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	m, err := curl.New(loop)
	if err != nil {
		t.Fatal(err)
	}
	late := loop.After(20*time.Second, func() { t.Error("the transfers stopped"); loop.Stop() })
	defer late.Stop()
	get := func(body func([]byte), done func(status int, err error)) *curl.Transfer {
		tr, err := m.Get(url, curl.Handler{Body: body, Done: done})
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
	get(func([]byte) { panic("Body") }, func(status int, err error) {
		var e *curl.Error
		if !errors.As(err, &e) || e.Code != 23 {
			t.Errorf("after the panic in Body: %d, %v, want code 23", status, err)
		}
		for range 2 { // both end in one Dispatch
			get(nil, func(int, error) { panic("Done") }).Cancel()
		}
		get(nil, func(status int, err error) {
			if status != 200 || err != nil {
				t.Errorf("after the panics: %d, %v", status, err)
			}
			loop.Stop()
			panic("last")
		})
	})
	if err := loop.Run(); err != nil {
		t.Fatal(err)
	}
	if want := []any{"Body", "Done", "Done", "last"}; !slices.Equal(panics, want) {
		t.Errorf("panics %v were reported, want %v", panics, want)
	}
	// Detach tells every transfer, too.
	n := 0
	for range 2 {
		get(nil, func(int, error) { n++; panic("Detach") })
	}
	m.Close()
	if n != 0 {
		t.Error("Done was called inside Close")
	}
	if err := loop.Close(); err != nil {
		t.Error(err)
	}
	if n != 2 || len(panics) != 6 {
		t.Errorf("Done was called for %d of 2 transfers, and %d of 6 panics were reported", n, len(panics))
	}
}

// TestEnds: the ways in which a transfer ends, and what a Handler may call.
func TestEnds(t *testing.T) { hosttest.Backends(t, testEnds) }

func testEnds(t *testing.T, backend weir.LoopOption) {
	t.Helper()
	hold := make(chan struct{})
	big := bytes.Repeat([]byte("x"), 1<<20)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hold":
			select {
			case <-hold:
			case <-r.Context().Done():
			}
		case "/missing":
			http.NotFound(w, r)
		default:
			_, _ = w.Write(big)
		}
	})
	defer close(hold)
	loop, m := newLoop(t, backend)
	left := 0
	get := func(url string, body func(t *curl.Transfer), check func(status int, err error)) *curl.Transfer {
		left++
		var tr *curl.Transfer
		tr, err := m.Get(url, curl.Handler{
			Body: func([]byte) {
				if body != nil {
					body(tr)
				}
			},
			Done: func(status int, err error) {
				check(status, err)
				if left--; left == 0 {
					loop.Stop()
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
	canceled := func(status int, err error) {
		if !errors.Is(err, curl.ErrCanceled) {
			t.Errorf("canceled: %d, %v", status, err)
		}
	}
	get(url+"missing", nil, func(status int, err error) {
		if status != 404 || err != nil {
			t.Errorf("missing: %d, %v", status, err)
		}
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	get("http://"+ln.Addr().String()+"/", nil, func(status int, err error) {
		var e *curl.Error
		if !errors.As(err, &e) || e.Code != 7 {
			t.Errorf("refused: %d, %v, want code 7", status, err)
		}
	})
	get("file:///etc/passwd", nil, func(status int, err error) {
		if err == nil {
			t.Error("a URL of a file was fetched")
		}
	})
	get(url+"hold", nil, canceled).Cancel()
	held := get(url+"hold", nil, canceled)
	loop.After(50*time.Millisecond, held.Cancel)
	ended := false
	get(url+"big", func(tr *curl.Transfer) {
		if ended {
			t.Error("Body was called after Cancel")
		}
		ended = true
		tr.Cancel()
		tr.Cancel()
	}, canceled)
	nested := false
	get(url+"big", func(*curl.Transfer) {
		if !nested { // libcurl is calling, and must not be called
			nested = true
			get(url+"big", nil, func(status int, err error) {
				if status != 200 || err != nil {
					t.Errorf("nested: %d, %v", status, err)
				}
			})
		}
	}, func(status int, err error) {
		if status != 200 || err != nil {
			t.Errorf("big: %d, %v", status, err)
		}
	})
	if err := loop.Run(); err != nil {
		t.Fatal(err)
	}
	if left != 0 {
		t.Fatalf("%d transfers are left", left)
	}
	// A Handler closes all.
	get(url+"hold", nil, canceled)
	get(url+"big", func(*curl.Transfer) { m.Close() }, canceled)
	if err := loop.Run(); err != nil {
		t.Fatal(err)
	}
	if left != 0 {
		t.Fatalf("%d transfers are left after Close", left)
	}
	if _, err := m.Get(url, curl.Handler{}); !errors.Is(err, weir.ErrClosed) {
		t.Errorf("Get after Close: %v", err)
	}
}

// TestRemovedInside: a Handler may remove the source. Each transfer is told once, after the
// Handler has returned, and nothing of libcurl is left.
func TestRemovedInside(t *testing.T) { hosttest.Backends(t, testRemovedInside) }

func testRemovedInside(t *testing.T, backend weir.LoopOption) {
	t.Helper()
	hold := make(chan struct{})
	big := bytes.Repeat([]byte("x"), 1<<20)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			select {
			case <-hold:
			case <-r.Context().Done():
			}
			return
		}
		_, _ = w.Write(big)
	})
	defer close(hold)
	for _, where := range [...]string{"Body", "Done"} {
		loop, m := newLoop(t, backend)
		inside, bodies, dones := false, 0, 0
		remove := func() {
			inside = true
			if err := loop.RemoveSource(m); err != nil {
				t.Error(err)
			}
			inside = false
			if where == "Done" {
				return
			}
			if dones != 0 {
				t.Error("Done was called inside Body")
			}
		}
		const held = 3
		end := func(status int, err error) {
			if !errors.Is(err, curl.ErrCanceled) {
				t.Errorf("%d, %v, want ErrCanceled", status, err)
			}
			dones++
		}
		get := func(url string, h curl.Handler) {
			if _, err := m.Get(url, h); err != nil {
				t.Fatal(err)
			}
		}
		for range held {
			get(url+"hold", curl.Handler{Done: end})
		}
		want := held
		switch where {
		case "Body":
			want++
			get(url+"big", curl.Handler{Done: end, Body: func([]byte) {
				bodies++
				if inside || bodies > 1 {
					t.Error("Body was called after RemoveSource")
				}
				remove()
			}})
		case "Done":
			get(url+"big", curl.Handler{Done: func(status int, err error) {
				if status != 200 || err != nil {
					t.Errorf("%d, %v", status, err)
				}
				remove()
			}})
		}
		for end := time.Now().Add(20 * time.Second); dones < want; {
			if err := loop.Turn(10 * time.Millisecond); err != nil {
				t.Fatal(err)
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %d of %d transfers were told", where, dones, want)
			}
		}
		if _, err := m.Get(url, curl.Handler{}); !errors.Is(err, weir.ErrClosed) {
			t.Errorf("Get afterwards: %v", err)
		}
		if err := loop.AddSource(m); !errors.Is(err, weir.ErrClosed) {
			t.Errorf("AddSource afterwards: %v", err)
		}
		m.Close() // it has no effect
		if err := loop.Turn(0); err != nil {
			t.Fatal(err)
		}
		if dones != want {
			t.Errorf("%s: %d transfers were told, want %d", where, dones, want)
		}
	}
}
