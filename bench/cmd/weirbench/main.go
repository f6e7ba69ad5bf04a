// Command weirbench compares weir with what people would use instead, and
// writes a table, plots and the figures of every round to docs/bench.
//
//	weirbench -waiting
//	weirbench [-quick] [-only CASES] [-peers PEERS] [-rounds N] [-out DIR] [-strict] [-beside DIR]
//
// Each peer is a process of its own on one CPU, the load another on the other.
// In every round each peer runs once, in an order that reverses from round to
// round, so that the drift of the machine affects all alike; ratios are of
// figures from the same round.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bench is one run of everything.
type bench struct {
	build   builder
	tmp     string
	only    string
	peers   string
	profile string
	rounds  int
	began   time.Time
	end     time.Time
	report  report
	live    bool // standard error is a terminal
	line    string
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "weirbench:", err)
	os.Exit(1)
}

func main() {
	quick := flag.Bool("quick", false, "a short run of the most telling cases, in less than two minutes")
	only := flag.String("only", "", "cases to run, by name or the beginning of it, comma-separated")
	peers := flag.String("peers", "", "peers to run, likewise; the floor always runs")
	rounds := flag.Int("rounds", 0, "rounds of each case (default 5, with -quick 2); half as many more where there are aims")
	runTime := flag.Duration("time", 0, "what is counted of each run (default 400ms, with -quick 200ms)")
	budget := flag.Duration("budget", 14*time.Minute, "cases that would begin after this are left out")
	out := flag.String("out", "", "where to write (default docs/bench beside the module)")
	profile := flag.String("profile", "", "also write profiles of the Go servers to this directory")
	other := flag.String("beside", "", "another checkout, whose weir is measured too: for before and after in one run")
	list := flag.Bool("list", false, "list cases and peers")
	onTLS := flag.Bool("tls", false, "the bench of TLS instead of all others")
	onDatagrams := flag.Bool("datagrams", false, "the bench of datagrams instead of all others")
	strict := flag.Bool("strict", false, "fail if any round did")
	waits := flag.Bool("waiting", false, "compare the ways to wait instead, and write docs/bench/waiting.md")
	flag.Parse()
	runtime.LockOSThread() // see spawn

	choose := cases
	if *onDatagrams {
		choose = datagramCases
	}
	all := choose(100*time.Millisecond, 400*time.Millisecond)
	if *list {
		printList(all)
		return
	}
	if *rounds == 0 {
		*rounds = 5
		if *quick {
			*rounds = 2
		}
	}
	if *other != "" {
		dir, err := filepath.Abs(*other)
		if err != nil {
			fatal(err)
		}
		for _, peers := range []*[]peer{&echoPeers, &relayPeers, &datagramPeers, &datagramRelays} {
			*peers = beside(dir, weirServer, *peers, (*peer).part)
			*peers = beside(dir, weirCommand, *peers, (*peer).part)
		}
		for _, peers := range []*[]tlsPeer{&tlsRelays, &tlsEchoes} {
			*peers = beside(dir, tlsServer, *peers, (*tlsPeer).part)
			*peers = beside(dir, weirCommand, *peers, (*tlsPeer).part)
		}
	}
	if *quick {
		all = slices.DeleteFunc(choose(50*time.Millisecond, 200*time.Millisecond), func(c testCase) bool { return !c.quick && *only == "" && !*onDatagrams })
	}
	if *runTime > 0 {
		for i := range all {
			all[i].spec.Run = *runTime
		}
	}
	b := &bench{only: *only, peers: *peers, profile: *profile, rounds: *rounds}
	if *waits {
		if err := b.waiting(*out); err != nil {
			fatal(err)
		}
		return
	}
	if err := run(all, b, *budget, *out, *quick, *onTLS); err != nil {
		fatal(err)
	}
	if err := b.report.failure(); *strict && err != nil {
		fatal(err)
	}
}

func printList(all []testCase) {
	for _, c := range all {
		fmt.Printf("%-12s %s\n", c.Name, c.Title)
	}
	for _, m := range micros {
		fmt.Printf("%-12s %s\n", m.name, m.title)
	}
	for _, ps := range [][]peer{echoPeers, relayPeers} {
		var names []string
		for _, p := range ps {
			names = append(names, p.name)
		}
		fmt.Println("peers:", strings.Join(names, " "))
	}
}

// prepare finds the module, and makes a directory for the built programs; the
// caller calls clean.
func (b *bench) prepare(out *string) (clean func(), err error) {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/weir-io/weir/bench").Output()
	if err != nil {
		return nil, fmt.Errorf("run this inside the module bench: %w", err)
	}
	b.build = builder{root: strings.TrimSpace(string(root)), made: map[string]string{}, lost: map[string]error{}}
	if *out == "" {
		*out = filepath.Join(filepath.Dir(b.build.root), "docs", "bench")
	}
	if b.tmp, err = os.MkdirTemp("", "weirbench"); err != nil {
		return nil, err
	}
	b.build.dir = b.tmp
	_, err = unix.IoctlGetTermios(2, unix.TCGETS)
	b.live = err == nil
	raiseLimit()
	b.began = time.Now()
	return func() { _ = os.RemoveAll(b.tmp) }, nil
}

func run(all []testCase, b *bench, budget time.Duration, out string, quick, onTLS bool) error {
	clean, err := b.prepare(&out)
	if err != nil {
		return err
	}
	defer clean()
	if b.profile != "" {
		if b.profile, err = filepath.Abs(b.profile); err != nil {
			return err
		}
		if err := os.MkdirAll(b.profile, 0o755); err != nil {
			return err
		}
	}
	b.end = b.began.Add(budget)
	b.say("building")
	b.report.describe(b, quick)
	if onTLS {
		return b.runTLS(out)
	}
	if len(all) > 0 && all[0].datagrams() {
		return b.runDatagrams(all, out)
	}
	b.runMicros(quick) // first: they are short
	all = slices.DeleteFunc(all, func(c testCase) bool { return !chosen(b.only, c.Name) })
	for i := range all {
		b.runCase(&all[i], time.Until(b.end)/time.Duration(len(all)-i))
	}
	b.done("writing %s", out)
	b.report.Took = time.Since(b.began).Round(time.Second).String()
	return b.report.write(out)
}

// raiseLimit asks for descriptors for 9,000 connections and more.
func raiseLimit() {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) == nil && r.Cur < 20000 {
		r.Cur = min(r.Max, 20000)
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &r)
	}
}

// say shows what is going on, in one line that the next one replaces.
func (b *bench) say(format string, args ...any) {
	b.line = fmt.Sprintf("%5s  ", time.Since(b.began).Round(time.Second)) + fmt.Sprintf(format, args...)
	if b.live {
		fmt.Fprintf(os.Stderr, "\r\033[K%.100s", b.line)
	}
}

// done shows a line that stays.
func (b *bench) done(format string, args ...any) {
	b.say(format, args...)
	if b.live {
		fmt.Fprint(os.Stderr, "\r\033[K")
	}
	fmt.Fprintln(os.Stderr, b.line)
}

// roundsAtLeast is how many rounds a case gets even if it takes much more than
// its share of the time left: otherwise a machine that is busy with other
// things would leave out the last cases altogether.
const roundsAtLeast = 3

// runCase runs all peers of a case, round by round.
func (b *bench) runCase(c *testCase, share time.Duration) {
	began := time.Now()
	if time.Now().After(b.end) {
		b.report.Skipped = append(b.report.Skipped, c.Name+": not run, for lack of time")
		b.done("%s: left out, no time", c.Name)
		return
	}
	res := caseResult{Name: c.Name, Title: c.Title, Unit: c.unit.String(), Floor: c.floor(), c: c}
	var peers []peer
	for _, p := range c.peers() {
		if !chosen(b.peers, p.name) && p.name != c.floor() {
			continue
		}
		if _, err := b.build.path(p); err != nil {
			b.report.skip(p.name + ": " + err.Error())
			continue
		}
		peers = append(peers, p)
		res.Rows = append(res.Rows, row{Peer: p.name})
	}
	rounds := b.rounds
	if c.aim {
		rounds += rounds / 2
	}
	for round := range rounds {
		if round >= roundsAtLeast && time.Since(began) > 3*share/2 {
			b.report.skip(fmt.Sprintf("%s: %d of %d rounds, for lack of time", c.Name, rounds-round, rounds))
			break
		}
		order := make([]int, len(peers))
		for i := range order {
			order[i] = i
		}
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, i := range order {
			p := peers[i]
			b.say("%s  round %d of %d  %s", c.Name, round+1, rounds, p.name)
			profile := ""
			if b.profile != "" && round == rounds-1 {
				profile = filepath.Join(b.profile, c.Name+"-"+p.name+".prof")
			}
			res.Rows[i].Samples = append(res.Rows[i].Samples, b.measure(c, p, round, profile))
		}
	}
	if c.count {
		for i, p := range peers {
			b.say("%s  counting  %s", c.Name, p.name)
			n := b.count(c, p)
			res.Rows[i].Counts = &n
		}
	}
	res.sum()
	b.report.Cases = append(b.report.Cases, res)
	b.done("%s", c.Name)
	for _, r := range res.Rows {
		fmt.Fprintf(os.Stderr, "         %s\n", r.brief(c))
	}
}

func (r *report) skip(why string) {
	if !slices.Contains(r.Skipped, why) {
		r.Skipped = append(r.Skipped, why)
	}
}

// write puts everything into a directory: what each round measured into
// samples.json, which git does not keep in docs/bench, and the summary into
// results.json.
func (r *report) write(dir string) error {
	if err := writeJSON(dir, "samples.json", r); err != nil {
		return err
	}
	if err := writeJSON(dir, "results.json", r.summary()); err != nil {
		return err
	}
	if err := r.plots(dir); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "README.md"), []byte(r.markdown()), 0o644)
}

// writeJSON writes every figure to a file in dir, which it makes if necessary.
func writeJSON(dir, name string, v any) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), append(brief(text), '\n'), 0o644)
}

var (
	innermost = regexp.MustCompile(`\{[^{}\[\]]*\}`)
	between   = regexp.MustCompile(`\n\t*`)
	decimals  = regexp.MustCompile(`("[A-Za-z0-9]+": )(-?[0-9]+\.[0-9]{3,})\b`)
)

// brief makes indented JSON shorter: an object that contains no other takes one
// line, and numbers with more than three decimals get four significant digits,
// since no figure here is repeatable to more.
func brief(text []byte) []byte {
	text = decimals.ReplaceAllFunc(text, func(b []byte) []byte {
		m := decimals.FindSubmatch(b)
		v, err := strconv.ParseFloat(string(m[2]), 64)
		if err != nil {
			return b
		}
		if math.Abs(v) < 1000 {
			v, err = strconv.ParseFloat(strconv.FormatFloat(v, 'g', 4, 64), 64)
		} else {
			v = math.Round(v)
		}
		if err != nil {
			return b
		}
		return append(m[1], strconv.FormatFloat(v, 'f', -1, 64)...)
	})
	return innermost.ReplaceAllFunc(text, func(b []byte) []byte { return between.ReplaceAll(b, []byte(" ")) })
}
