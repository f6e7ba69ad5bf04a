package curl

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/weir-io/weir"
)

// TestRefused: a transfer that libcurl does not take ends with the reason.
func TestRefused(t *testing.T) {
	hold := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hold }))
	defer s.Close()
	defer close(hold)
	loop, err := weir.NewLoop(weir.WithErrorHandler(func(err error) { t.Error(err) }))
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	m, err := New(loop)
	if err != nil {
		t.Fatal(err)
	}
	late := loop.After(20*time.Second, func() { t.Error("Done was not called"); loop.Stop() })
	defer late.Stop()
	dones := 0
	tr, err := m.Get(s.URL, Handler{Done: func(status int, err error) {
		dones++
		var e *Error
		if !errors.As(err, &e) || e.Code != 7 { // CURLM_ADDED_ALREADY
			t.Errorf("%d, %v, want code 7", status, err)
		}
		loop.Stop()
	}})
	if err != nil {
		t.Fatal(err)
	}
	m.Dispatch()
	if !tr.added {
		t.Fatal("the transfer was not added")
	}
	// libcurl refuses what it has already.
	tr.added = false
	m.changed = append(m.changed, tr)
	loop.Soon(m.Dispatch)
	if err := loop.Run(); err != nil {
		t.Fatal(err)
	}
	if dones != 1 || len(m.active) != 0 {
		t.Errorf("Done was called %d times, and %d transfers are left", dones, len(m.active))
	}
}
