// Serve is the server that the examples of hosts download from: /1000000 is a file of a
// million bytes.
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"

	"github.com/weir-io/weir/hosts/internal/download"
)

func main() {
	at := flag.String("listen", "127.0.0.1:8000", "where to listen")
	flag.Parse()
	ln, err := net.Listen("tcp", *at)
	if err == nil {
		fmt.Println("serving http://" + ln.Addr().String() + "/")
		err = http.Serve(ln, download.Handler())
	}
	fmt.Fprintln(os.Stderr, "serve:", err)
	os.Exit(1)
}
