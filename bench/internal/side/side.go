// Package side is what every Go server of the benchmarks has besides its
// sockets: the line that says where it listens, and answers about its memory
// over standard input and output.
package side

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/metrics"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"time"
)

// Stats are a server's answer to "stats". Sizes are in bytes.
type Stats struct {
	Mallocs    uint64 // objects allocated so far
	AllocBytes uint64 // their bytes
	Heap       uint64 // taken by live and not yet swept objects
	Stack      uint64 // taken by goroutines' stacks
	Goroutines uint64
	GCs        uint64
	GCTimes    []float64 `json:",omitempty"` // ms, of the collections that -collect made
}

// Config is what the command line asks of a server.
type Config struct {
	Addr    string // where to listen
	Loops   int    // event loops, where it has loops
	Buf     int    // bytes of a read buffer, where it has one for each connection
	Frame   int    // if not 0: answer each message of this many bytes separately
	Join    bool   // the standard library's server joins the answers it has at hand
	Backend string // weir's backend
	Target  string // where a relay connects to
	Copy    bool   // a relay must not splice
	Collect bool   // make garbage, and collect it every 10 ms
	UDP     bool   // serve datagrams
}

// Buffers is how many bytes an echo server of datagrams asks for to receive them.
const Buffers = 4 << 20

// Parse reads the command line.
func Parse() Config {
	var c Config
	flag.StringVar(&c.Addr, "addr", "127.0.0.1:0", "address to listen on")
	flag.IntVar(&c.Loops, "loops", 1, "event loops")
	flag.IntVar(&c.Buf, "buf", 4096, "read buffer of a connection, in bytes")
	flag.IntVar(&c.Frame, "frame", 0, "answer each message of so many bytes by itself")
	flag.BoolVar(&c.Join, "join", false, "join the answers at hand, for std")
	flag.StringVar(&c.Backend, "backend", "", "backend, for weir")
	flag.StringVar(&c.Target, "target", "", "be a relay to this address")
	flag.BoolVar(&c.Copy, "copy", false, "relay by copying")
	flag.BoolVar(&c.Collect, "collect", false, "make garbage, and collect it every 10 ms")
	flag.BoolVar(&c.UDP, "udp", false, "serve datagrams")
	flag.Parse()
	if c.Collect {
		go collections.make()
	}
	return c
}

// Serve reports that the server listens on addr, then answers lines on standard
// input until that ends, and then ends the process:
//
//	stats         one line of JSON, a Stats
//	gc            the same after a garbage collection
//	profile PATH  starts a CPU profile; "profile" alone ends it
//	heap PATH     writes a profile of the heap
func Serve(addr string) {
	fmt.Println("ready " + addr)
	in := bufio.NewScanner(os.Stdin)
	var profile *os.File
	for in.Scan() {
		verb, arg, _ := strings.Cut(in.Text(), " ")
		switch verb {
		case "gc":
			runtime.GC()
			runtime.GC() // the second empties the pools
			answer(Read())
		case "stats":
			answer(Read())
		case "profile":
			if profile != nil {
				pprof.StopCPUProfile()
				_ = profile.Close()
				profile = nil
			}
			if arg != "" {
				f, err := os.Create(arg)
				Check(err)
				Check(pprof.StartCPUProfile(f))
				profile = f
			}
			answer("ok")
		case "heap":
			f, err := os.Create(arg)
			Check(err)
			Check(pprof.WriteHeapProfile(f))
			Check(f.Close())
			answer("ok")
		}
	}
	os.Exit(0)
}

// collections are those that -collect made.
var collections garbage

type garbage struct {
	mu    sync.Mutex
	times []float64 // ms
	keep  [][]byte
}

// make makes garbage and collects it until the process ends. How long a
// collection takes shows whether the loop's way to wait holds it up.
func (g *garbage) make() {
	for range time.Tick(10 * time.Millisecond) {
		g.keep = g.keep[:0]
		for range 100 {
			g.keep = append(g.keep, make([]byte, 1024))
		}
		began := time.Now()
		runtime.GC()
		g.mu.Lock()
		g.times = append(g.times, float64(time.Since(began))/1e6)
		g.mu.Unlock()
	}
}

func (g *garbage) taken() []float64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.times)
}

// Read asks the runtime.
func Read() Stats {
	s := []metrics.Sample{
		{Name: "/gc/heap/allocs:objects"},
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/stacks:bytes"},
		{Name: "/sched/goroutines:goroutines"},
		{Name: "/gc/cycles/total:gc-cycles"},
	}
	metrics.Read(s)
	return Stats{
		Mallocs:    s[0].Value.Uint64(),
		AllocBytes: s[1].Value.Uint64(),
		Heap:       s[2].Value.Uint64(),
		Stack:      s[3].Value.Uint64(),
		Goroutines: s[4].Value.Uint64(),
		GCs:        s[5].Value.Uint64(),
		GCTimes:    collections.taken(),
	}
}

func answer(v any) {
	b, err := json.Marshal(v)
	Check(err)
	fmt.Println(string(b))
}

// Check ends the process if err is an error.
func Check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, os.Args[0]+": "+err.Error())
		os.Exit(1)
	}
}
