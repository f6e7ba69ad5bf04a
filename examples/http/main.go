// HTTP serves a directory with net/http, unchanged, over weir: the loop accepts,
// speaks TLS and moves the bytes; the handlers are goroutines as usual. SIGTERM
// and Ctrl-C shut it down gracefully: requests under way are answered, and the
// answers are sent before the program exits.
//
//	go run ./examples/http &
//	curl --insecure https://127.0.0.1:8443/README.md
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/netconn"
)

// patience is how long requests under way may take once the program has to end:
// less than the ten seconds after which containers are killed.
const patience = 8 * time.Second

func main() {
	addr := flag.String("addr", "127.0.0.1:8443", "where to listen")
	dir := flag.String("dir", ".", "what to serve")
	cert := flag.String("cert", "", "certificate file (default: one for this run, which no one trusts)")
	key := flag.String("key", "", "its key file")
	flag.Parse()
	if err := serve(*addr, *dir, *cert, *key); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(addr, dir, cert, key string) error {
	config, err := tlsConfig(cert, key)
	if err != nil {
		return err
	}
	loop, err := weir.NewLoop()
	if err != nil {
		return err
	}
	defer loop.Close()
	ln, err := netconn.NewListener(loop, func(f weir.Factory) (*weir.Listener, error) {
		return loop.Listen("tcp", addr, layer.Server(f, layer.TLSServer(config)))
	})
	if err != nil {
		return err
	}
	fmt.Println("serving", dir, "at https://"+ln.Addr().String())

	server := &http.Server{Handler: http.FileServer(http.Dir(dir)), ReadHeaderTimeout: 10 * time.Second}
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
		_ = server.Shutdown(ctx)         // the handlers return,
		loop.Shutdown(time.Until(until)) // and what they wrote leaves
	})
	if err := loop.Run(); err != nil {
		return err
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return loop.Close() // it reports what was cut
}

// tlsConfig has the certificate from the files, or a self-signed one.
func tlsConfig(cert, key string) (*tls.Config, error) {
	if cert == "" {
		return selfSigned()
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	return &tls.Config{Certificates: []tls.Certificate{pair}}, err
}
