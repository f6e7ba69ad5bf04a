// Front puts HTTP in front of a server that speaks lines: net/http's handlers ask it
// over a pool of connections that one loop keeps open.
//
//	go run ./examples/shutdown &
//	go run ./examples/front &
//	curl 'http://127.0.0.1:8081/?line=hello'
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/netconn"
)

const (
	connections = 4               // to the backend
	patience    = 8 * time.Second // for requests under way at the end
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8081", "where to listen")
	behind := flag.String("behind", "localhost:7003", "the server that speaks lines")
	flag.Parse()
	if err := serve(*addr, *behind); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(addr, behind string) error {
	loop, err := weir.NewLoop()
	if err != nil {
		return err
	}
	ln, err := netconn.Listen(loop, "tcp", addr)
	if err != nil {
		return errors.Join(err, loop.Close())
	}
	pool := newPool(loop, behind, connections)
	server := &http.Server{Handler: front{pool}, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() {
		err := server.Serve(ln)
		if !errors.Is(err, http.ErrServerClosed) {
			loop.Stop() // otherwise Shutdown has only begun
		}
		served <- err
	}()
	interrupted, forget := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer forget()
	context.AfterFunc(interrupted, func() {
		forget() // a second signal ends the program at once
		until := time.Now().Add(patience)
		ctx, cancel := context.WithDeadline(context.Background(), until)
		defer cancel()
		_ = server.Shutdown(ctx) // no handler asks any more
		pool.close()
		loop.Shutdown(time.Until(until))
	})
	if err := loop.Run(); err != nil {
		return err
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return loop.Close()
}

// front answers with the backend's reply to a line.
type front struct{ pool *pool }

func (f front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	line := r.FormValue("line")
	if strings.ContainsAny(line, "\r\n") {
		http.Error(w, "one line only", http.StatusBadRequest)
		return
	}
	answer, err := f.pool.Ask(r.Context(), line)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	fmt.Fprintln(w, answer)
}
