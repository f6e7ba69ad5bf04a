// Redis is a server for the Redis protocol (RESP 2) that keeps strings in
// memory: GET, SET with expiry, DEL, INCR and whatever else redis-cli and
// redis-benchmark ask for. It shows a bounded feed parser, pipelining without a
// line of code for it, and one timer of the loop for each key that expires.
//
//	go run ./examples/redis &
//	redis-cli -p 6380 SET greeting hello EX 10
//	redis-benchmark -p 6380 -t get,set -P 16
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/weir-io/weir"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:6380", "where to listen")
	flag.Parse()
	if err := weir.ListenAndServe("tcp", *addr, newStore().serve); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
