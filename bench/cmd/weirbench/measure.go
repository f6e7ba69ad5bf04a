package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/weir-io/weir/bench/internal/load"
	"github.com/weir-io/weir/bench/internal/side"
)

// A sample is one peer's figures in one round.
type sample struct {
	Round  int
	Result load.Result
	Memory *memory `json:",omitempty"`
	Error  string  `json:",omitempty"` // why there are none
}

// memory is what idle connections take, in bytes for each.
type memory struct {
	Heap, Stack float64 // after a garbage collection; for peers in Go
	RSS         float64 // growth of the server process since before the load
	Kernel      float64 // slab and socket buffers, both ends of the connection
}

// counts are the countable costs of a peer's run.
type counts struct {
	Syscalls float64            // for each message; -1: not counted
	ByName   map[string]float64 // the same by system call
	Allocs   float64            // for each message; -1: not a program in Go
	Error    string             `json:",omitempty"`
}

// cost is the figure of a sample that the case is about.
func (c *testCase) cost(s sample) float64 {
	switch c.unit {
	case perGiB:
		return s.Result.ServerCPU / (float64(s.Result.Bytes) / (1 << 30))
	case perIdle:
		return s.Memory.RSS
	case byLatency:
		return s.Result.P50 / 1e3
	case perTwoDatagrams:
		return s.Result.ServerCPU / float64(s.Result.Messages) / 2 * 1e6
	default:
		return s.Result.ServerCPU / float64(s.Result.Messages) * 1e6
	}
}

// measure is one round of one peer. Profile, if not empty, is where a CPU
// profile of the server goes.
func (b *bench) measure(c *testCase, p peer, round int, profile string) sample {
	s := sample{Round: round}
	err := b.tryMeasure(c, p, &s, profile)
	if err == nil && c.unit != perGiB && c.unit != perIdle && s.Result.Messages == 0 || err == nil && c.unit == perGiB && s.Result.Bytes == 0 {
		err = fmt.Errorf("nothing came back")
	}
	if err != nil {
		s.Error = err.Error()
	}
	return s
}

func (b *bench) loader(c *testCase, spec load.Spec) (*process, error) {
	spec.CPU = loadCPU()
	if c.loops > 1 {
		spec.CPU = -1
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	path, err := b.build.program("cmd/weirload")
	if err != nil {
		return nil, err
	}
	return spawn(-1, path, string(text))
}

// limit is how long a run may take in all.
func limit(s load.Spec) time.Duration { return s.Warm + s.Run + 40*time.Second }

func (b *bench) tryMeasure(c *testCase, p peer, s *sample, profile string) error {
	spec := c.spec
	if c.relays() {
		return b.tryRelay(c, p, s, profile)
	}
	srv, addr, err := b.server(p, c, "")
	if err != nil {
		return err
	}
	defer srv.end()
	var before memoryReading
	if c.memory {
		if before, err = readMemory(srv, p); err != nil {
			return err
		}
	}
	if err := startProfile(srv, p, profile); err != nil {
		return err
	}
	spec.Addr, spec.PIDs = addr, []int{srv.pid()}
	ld, err := b.loader(c, spec)
	if err != nil {
		return err
	}
	defer ld.end()
	if err := ld.object(&s.Result, limit(spec)); err != nil {
		return err
	}
	if err := endProfile(srv, p, profile); err != nil {
		return err
	}
	if c.memory {
		after, err := readMemory(srv, p)
		if err != nil {
			return err
		}
		s.Memory = after.since(before, spec.Conns)
		return writeHeap(srv, p, profile)
	}
	return nil
}

func startProfile(srv *process, p peer, path string) error {
	if path == "" || !p.side {
		return nil
	}
	if err := srv.say("profile " + path); err != nil {
		return err
	}
	_, err := srv.after(`"ok"`, 5*time.Second)
	return err
}

func endProfile(srv *process, p peer, path string) error {
	if path == "" || !p.side {
		return nil
	}
	if err := srv.say("profile"); err != nil {
		return err
	}
	_, err := srv.after(`"ok"`, 5*time.Second)
	return err
}

// writeHeap writes a heap profile beside the CPU profile. For exact figures run
// the bench with GODEBUG=memprofilerate=1.
func writeHeap(srv *process, p peer, path string) error {
	if path == "" || !p.side {
		return nil
	}
	if err := srv.say("heap " + strings.TrimSuffix(path, ".prof") + ".heap"); err != nil {
		return err
	}
	_, err := srv.after(`"ok"`, 5*time.Second)
	return err
}

func (b *bench) tryRelay(c *testCase, p peer, s *sample, profile string) error {
	ld, srv, err := b.meet(c, p, c.spec, profile)
	if err != nil {
		return err
	}
	defer ld.end()
	defer srv.end()
	if c.unit == perIdle {
		return b.tryIdle(c, p, s, ld, srv, profile)
	}
	if err := ld.object(&s.Result, limit(c.spec)); err != nil {
		return err
	}
	return endProfile(srv, p, profile)
}

// idleTime is how long connections have been idle when their memory is read.
const idleTime = 4 * time.Second

// tryIdle reads the memory when a tenth of the connections is there, and when all are.
func (b *bench) tryIdle(c *testCase, p peer, s *sample, ld, srv *process, profile string) error {
	read := func(v any) (memoryReading, error) {
		if err := ld.object(v, limit(c.spec)); err != nil {
			return memoryReading{}, err
		}
		time.Sleep(idleTime) // this long is what is measured
		return readMemory(srv, p)
	}
	var few struct{ Primed bool }
	before, err := read(&few)
	if err != nil {
		return err
	}
	if err := ld.say("go"); err != nil {
		return err
	}
	after, err := read(&s.Result)
	if err != nil {
		return err
	}
	s.Memory = after.since(before, c.spec.Conns-c.spec.Conns/10)
	if err := endProfile(srv, p, profile); err != nil {
		return err
	}
	return writeHeap(srv, p, profile)
}

// meet starts a load and its relay, which knows where the load's backend is.
func (b *bench) meet(c *testCase, p peer, spec load.Spec, profile string) (ld, srv *process, err error) {
	if _, err := b.build.path(p); err != nil {
		return nil, nil, err
	}
	loader, err := b.loader(c, spec)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			loader.end()
		}
	}()
	var hello struct{ Backend string }
	if err = loader.object(&hello, 10*time.Second); err != nil {
		return nil, nil, err
	}
	server, addr, err := b.server(p, c, hello.Backend)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			server.end()
		}
	}()
	if err = startProfile(server, p, profile); err != nil {
		return nil, nil, err
	}
	text, err := json.Marshal(map[string]any{"Addr": addr, "PIDs": []int{server.pid()}})
	if err != nil {
		return nil, nil, err
	}
	return loader, server, loader.say(string(text))
}

// begin starts a server and its load, in the order that the case wants.
func (b *bench) begin(c *testCase, p peer, spec load.Spec) (ld, srv *process, err error) {
	if c.relays() {
		return b.meet(c, p, spec, "")
	}
	srv, addr, err := b.server(p, c, "")
	if err != nil {
		return nil, nil, err
	}
	spec.Addr, spec.PIDs = addr, []int{srv.pid()}
	if ld, err = b.loader(c, spec); err != nil {
		srv.end()
	}
	return ld, srv, err
}

// memoryReading is the memory in use at one time, in bytes.
type memoryReading struct {
	side        side.Stats
	rss, kernel float64
}

func readMemory(srv *process, p peer) (memoryReading, error) {
	var m memoryReading
	var err error
	if p.side {
		if m.side, err = srv.stats("gc"); err != nil {
			return m, err
		}
	}
	statm, err := os.ReadFile("/proc/" + strconv.Itoa(srv.pid()) + "/statm")
	if err != nil {
		return m, err
	}
	pages, _ := strconv.ParseFloat(strings.Fields(string(statm))[1], 64)
	m.rss = pages * float64(os.Getpagesize())
	m.kernel, err = kernelMemory()
	return m, err
}

func (m memoryReading) since(before memoryReading, conns int) *memory {
	n := float64(conns)
	return &memory{
		Heap:   (float64(m.side.Heap) - float64(before.side.Heap)) / n,
		Stack:  (float64(m.side.Stack) - float64(before.side.Stack)) / n,
		RSS:    (m.rss - before.rss) / n,
		Kernel: (m.kernel - before.kernel) / n,
	}
}

// kernelMemory is the active objects of the slab and the socket buffers.
func kernelMemory() (float64, error) {
	sum := 0.0
	slab, err := os.ReadFile("/proc/slabinfo")
	if err != nil {
		return 0, err // it needs root
	}
	for _, line := range strings.Split(string(slab), "\n") {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		active, err1 := strconv.ParseFloat(f[1], 64)
		size, err2 := strconv.ParseFloat(f[3], 64)
		if err1 == nil && err2 == nil {
			sum += active * size
		}
	}
	stat, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return 0, err
	}
	for _, line := range strings.Split(string(stat), "\n") {
		f := strings.Fields(line)
		for i := 1; len(f) > 0 && f[0] == "TCP:" && i+1 < len(f); i += 2 {
			if pages, err := strconv.ParseFloat(f[i+1], 64); err == nil && f[i] == "mem" {
				sum += pages * float64(os.Getpagesize())
			}
		}
	}
	return sum, nil
}

// count runs a peer under strace and asks it for its allocations. The figures
// of that round are of no other use: strace makes calls slow. That makes turns
// larger, so peers that wait once for many messages look a little better than
// they are.
//
// A datagram relay's load has no warm-up before it is counted, and under strace so few
// datagrams pass that what a flow allocates once would count as theirs. So datagrams are
// counted in a round of their own for that, without strace.
func (b *bench) count(c *testCase, p peer) counts {
	n := counts{Syscalls: -1, Allocs: -1}
	err := b.tryCount(c, p, &n, true)
	if err == nil && c.datagrams() && p.side {
		calls, names := n.Syscalls, n.ByName
		err = b.tryCount(c, p, &n, false)
		n.Syscalls, n.ByName = calls, names
	}
	if err != nil {
		n.Error = err.Error()
	}
	return n
}

func (b *bench) tryCount(c *testCase, p peer, n *counts, traced bool) error {
	spec := c.spec
	spec.Steps, spec.Run, spec.Warm = true, 400*time.Millisecond, 0
	if !traced {
		spec.Run = 2 * time.Second
	}
	// The calls of the runtime's own threads come by the clock: on a busy machine they
	// would be most of those that few datagrams are charged with.
	spec.Least = 20_000
	ld, srv, err := b.begin(c, p, spec)
	if err != nil {
		return err
	}
	defer srv.end()
	defer ld.end()
	if _, err := ld.line(20 * time.Second); err != nil {
		return err
	}
	var before side.Stats
	if p.side {
		for range 2 { // the first answer allocates what later ones use again
			if before, err = srv.stats("stats"); err != nil {
				return err
			}
		}
	}
	table := filepath.Join(b.tmp, "strace")
	var trace *exec.Cmd
	if traced {
		if trace, err = b.trace(srv.pid(), table); err != nil {
			return err
		}
	}
	if err := ld.say("go"); err != nil {
		return err
	}
	var res load.Result
	err = ld.object(&res, limit(spec))
	if trace != nil {
		_ = trace.Process.Signal(syscall.SIGINT)
		_ = trace.Wait()
	}
	if err != nil {
		return err
	}
	all := float64(res.All)
	if c.unit == perTwoDatagrams {
		all *= 2
	}
	if p.side {
		after, err := srv.stats("stats")
		if err != nil {
			return err
		}
		n.Allocs = float64(after.Mallocs-before.Mallocs) / all
	}
	if trace != nil {
		n.Syscalls, n.ByName, err = straceTable(table, all)
	}
	return err
}

// trace attaches strace to a process, if there is strace.
func (b *bench) trace(pid int, table string) (*exec.Cmd, error) {
	path, err := exec.LookPath("strace")
	if err != nil {
		return nil, nil
	}
	cmd := exec.Command(path, "-f", "-c", "-U", "name,calls", "-o", table, "-p", strconv.Itoa(pid))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGINT}
	out, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	// It reports when it is attached to all threads, and again for new ones.
	lines := bufio.NewScanner(out)
	if !lines.Scan() || !strings.Contains(lines.Text(), "attached") {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, fmt.Errorf("strace: %s", lines.Text())
	}
	go func() {
		for lines.Scan() {
		}
	}()
	return cmd, nil
}

// straceTable parses what strace -c wrote.
func straceTable(path string, messages float64) (float64, map[string]float64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return -1, nil, err
	}
	byName, sum := map[string]float64{}, 0.0
	for _, line := range strings.Split(string(text), "\n") {
		f := strings.Fields(line)
		if len(f) != 2 || f[0] == "total" {
			continue
		}
		if n, err := strconv.ParseFloat(f[1], 64); err == nil {
			byName[f[0]] = n / messages
			sum += n / messages
		}
	}
	if sum == 0 {
		return -1, nil, fmt.Errorf("strace counted nothing")
	}
	return sum, byName, nil
}
