// Command utpline measures uTP on a line with a long queue, alone and beside TCP:
//
//	utpline [-out DIR]     root only; ip and tc; writes ledbat.md, ledbat.json and ledbat.svg
//
// It makes two network namespaces and a third between them, which bridges them: the line
// is a token bucket (tbf) there, whose queue holds 400 ms. On the sender's own device the
// kernel would keep TCP from filling it. utpline starts itself in the namespaces:
//
//	utpline recv           counts what comes, and prints that for each line it reads
//	utpline send utp|tcp   writes as fast as it may
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/utp"
)

const (
	mbit    = 20
	holds   = 400 // ms
	step    = 500 * time.Millisecond
	near    = "weirline-a"
	middle  = "weirline-m"
	far     = "weirline-b"
	farAddr = "10.213.0.2"
	port    = "7000"
)

func main() {
	out := flag.String("out", "../docs/bench", "where the results go")
	flag.Parse()
	var err error
	switch flag.Arg(0) {
	case "recv":
		err = receive()
	case "send":
		err = send(flag.Arg(1))
	default:
		err = run(*out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "utpline:", err)
		os.Exit(1)
	}
}

// counted is what the connections of one kind have received, in the order in which they
// came.
type counted struct{ all []*uint64 }

type sinkProto struct{ n *uint64 }

func (s *sinkProto) ConnectionMade(weir.Transport) {}
func (s *sinkProto) DataReceived(p []byte) (int, error) {
	*s.n += uint64(len(p))
	return len(p), nil
}
func (s *sinkProto) ConnectionLost(error) {}

func (c *counted) make(weir.Transport) weir.Protocol {
	n := new(uint64)
	c.all = append(c.all, n)
	return &sinkProto{n}
}

func receive() error {
	l, err := weir.NewLoop()
	if err != nil {
		return err
	}
	defer l.Close()
	var byUTP, byTCP counted
	if _, err := utp.Listen(l, "udp4", farAddr+":"+port, byUTP.make, utp.Config{}); err != nil {
		return err
	}
	if _, err := l.Listen("tcp4", farAddr+":"+port, byTCP.make); err != nil {
		return err
	}
	fmt.Println("ready")
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			_, _ = l.Post(func() {
				counts := map[string][]uint64{}
				for name, c := range map[string]*counted{"utp": &byUTP, "tcp": &byTCP} {
					for _, n := range c.all {
						counts[name] = append(counts[name], *n)
					}
				}
				_ = json.NewEncoder(os.Stdout).Encode(counts)
			})
		}
		_, _ = l.Post(l.Stop)
	}()
	return l.Run()
}

type flood struct{ t weir.Transport }

var piece = make([]byte, 256<<10)

func (f *flood) ConnectionMade(t weir.Transport)    { f.t = t; _, _ = t.Write(piece) }
func (f *flood) WriteDrained()                      { _, _ = f.t.Write(piece) }
func (f *flood) DataReceived(p []byte) (int, error) { return len(p), nil }
func (f *flood) ConnectionLost(err error)           { f.ConnectFailed(nil) }
func (f *flood) ConnectFailed(err *weir.ConnectError) {
	fmt.Fprintln(os.Stderr, "utpline: the connection ended", err)
	os.Exit(1)
}

func send(network string) error {
	if network == "tcp" {
		return sendTCP()
	}
	l, err := weir.NewLoop()
	if err != nil {
		return err
	}
	defer l.Close()
	utp.Connect(l, "udp4", farAddr+":"+port, &flood{}, utp.Config{})
	return l.Run()
}

// sendTCP is the kernel's TCP, with cubic.
func sendTCP() error {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if cerr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "cubic")
		}); cerr != nil {
			return cerr
		}
		return err
	}}
	c, err := d.Dial("tcp4", farAddr+":"+port)
	for err == nil {
		_, err = c.Write(piece)
	}
	return err
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// line makes the two namespaces and returns what removes them.
func line() (remove func(), err error) {
	remove = func() {
		_ = command("ip", "netns", "del", near)
		_ = command("ip", "netns", "del", middle)
		_ = command("ip", "netns", "del", far)
	}
	for _, c := range []string{
		"ip netns add " + near,
		"ip netns add " + far,
		"ip netns add " + middle,
		"ip link add line netns " + near + " type veth peer name near netns " + middle,
		"ip link add line netns " + far + " type veth peer name far netns " + middle,
		"ip -n " + middle + " link add bridge type bridge",
		"ip -n " + middle + " link set near master bridge",
		"ip -n " + middle + " link set far master bridge",
		"ip -n " + middle + " link set near up",
		"ip -n " + middle + " link set far up",
		"ip -n " + middle + " link set bridge up",
		"ip -n " + near + " addr add 10.213.0.1/24 dev line",
		"ip -n " + far + " addr add " + farAddr + "/24 dev line",
		"ip -n " + near + " link set line up",
		"ip -n " + far + " link set line up",
		fmt.Sprintf("tc -n %s qdisc add dev far root tbf rate %dmbit burst 8kb latency %dms", middle, mbit, holds),
	} {
		f := strings.Fields(c)
		if err := command(f[0], f[1:]...); err != nil {
			remove()
			return nil, err
		}
	}
	return remove, nil
}

func inside(namespace string, args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	c := exec.Command("ip", append([]string{"netns", "exec", namespace, self}, args...)...)
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

// backlog is how many bytes wait in the queue, and how many packets it has dropped.
func backlog() (bytes, dropped int, err error) {
	out, err := exec.Command("tc", "-n", middle, "-j", "-s", "qdisc", "show", "dev", "far").Output()
	var q []struct {
		Backlog, Drops int
	}
	if err == nil {
		err = json.Unmarshal(out, &q)
	}
	if err == nil && len(q) == 0 {
		err = errors.New("tc shows no queue")
	}
	if err != nil {
		return 0, 0, err
	}
	return q[0].Backlog, q[0].Drops, nil
}

// flow is one that is sent: from and until when, in seconds.
type flow struct {
	Network     string
	From, Until float64
}

// scene is a run with its results.
type scene struct {
	Title string
	Long  float64 // seconds
	Flows []flow
	Rates map[string][]float64 // Mbit/s of each flow, every half second: "utp 0"
	Took  []float64            // seconds that each of them is for, which a busy machine makes differ
	Queue []float64            // ms
	Drops []int
}

// mean is the mean of values from second a to b.
func (s *scene) mean(v []float64, a, b float64) float64 {
	at, sum, long := 0.0, 0.0, 0.0
	for i, x := range v {
		if at >= a && at < b {
			sum += x * s.Took[i]
			long += s.Took[i]
		}
		at += s.Took[i]
	}
	return sum / long
}

func (s *scene) run() error {
	remove, err := line()
	if err != nil {
		return err
	}
	defer remove()
	recv := inside(far, "recv")
	ask, err := recv.StdinPipe()
	if err != nil {
		return err
	}
	answers, err := recv.StdoutPipe()
	if err != nil {
		return err
	}
	if err := recv.Start(); err != nil {
		return err
	}
	defer func() { _ = ask.Close(); _ = recv.Wait() }()
	in := bufio.NewScanner(answers)
	if !in.Scan() {
		return errors.New("the receiver does not start")
	}
	senders := make([]*exec.Cmd, len(s.Flows))
	defer func() {
		for _, c := range senders {
			if c != nil {
				_ = c.Process.Kill()
				_ = c.Wait()
			}
		}
	}()
	s.Rates = map[string][]float64{}
	before := map[string][]uint64{}
	tick := time.NewTicker(step)
	defer tick.Stop()
	begin := time.Now()
	for last := begin; time.Since(begin).Seconds() < s.Long; {
		at := time.Since(begin).Seconds()
		for i, f := range s.Flows {
			switch c := senders[i]; {
			case c == nil && at >= f.From && at < f.Until:
				senders[i] = inside(near, "send", f.Network)
				if err := senders[i].Start(); err != nil {
					return err
				}
			case c != nil && at >= f.Until:
				_ = c.Process.Kill()
				_ = c.Wait()
				senders[i] = nil
			}
		}
		<-tick.C
		if _, err := io.WriteString(ask, "\n"); err != nil {
			return err
		}
		if !in.Scan() {
			return errors.New("the receiver has ended")
		}
		now := time.Now()
		counts := map[string][]uint64{}
		if err := json.Unmarshal(in.Bytes(), &counts); err != nil {
			return err
		}
		waits, dropped, err := backlog()
		if err != nil {
			return err
		}
		seen := map[string]int{}
		for _, f := range s.Flows {
			k := seen[f.Network]
			seen[f.Network]++
			rate := 0.0
			if k < len(counts[f.Network]) {
				had := uint64(0)
				if k < len(before[f.Network]) {
					had = before[f.Network][k]
				}
				rate = float64(counts[f.Network][k]-had) * 8 / 1e6 / now.Sub(last).Seconds()
			}
			name := f.Network + " " + strconv.Itoa(k)
			s.Rates[name] = append(s.Rates[name], rate)
		}
		s.Queue = append(s.Queue, float64(waits)*8/(mbit*1e6)*1e3)
		s.Drops = append(s.Drops, dropped)
		s.Took = append(s.Took, now.Sub(last).Seconds())
		before, last = counts, now
	}
	return nil
}

func run(out string) error {
	if _, err := net.InterfaceByName("lo"); err != nil {
		return err
	}
	scenes := []*scene{
		{Title: "uTP alone", Long: 40, Flows: []flow{{"utp", 0, 40}}},
		{Title: "TCP alone", Long: 40, Flows: []flow{{"tcp", 0, 40}}},
		{Title: "uTP, and TCP from 20 s to 60 s", Long: 80, Flows: []flow{{"utp", 0, 80}, {"tcp", 20, 60}}},
		{Title: "two of uTP", Long: 60, Flows: []flow{{"utp", 0, 60}, {"utp", 0, 60}}},
	}
	for _, s := range scenes {
		if err := s.run(); err != nil {
			return fmt.Errorf("%s: %w", s.Title, err)
		}
		fmt.Fprintln(os.Stderr, s.Title)
	}
	if err := write(out, scenes); err != nil {
		return err
	}
	data, err := json.MarshalIndent(scenes, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "ledbat.json"), append(data, '\n'), 0o644)
}
