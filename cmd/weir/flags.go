package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weir-io/weir/endpoint"
)

// flagDoc is a flag of the command line. It may stand anywhere before --.
type flagDoc struct {
	name   string // without the dashes
	letter string // a short form, or ""
	value  string // what the value is called; "": it takes none
	words  []string
	doc    string
	set    func(f *flags, value string) error
}

const (
	staleUsual = 24 * time.Hour
	staleMost  = 7 * 24 * time.Hour // RFC 8767, 5: one to three days are recommended
)

// flags are the settings of a command line.
type flags struct {
	json       bool
	logRate    int
	quiet      bool
	pick       string
	check      time.Duration
	drain      time.Duration
	drains     bool     // drain was given
	loops      int      // 0 is 1; everyCore: as many as there are processors
	allow      []string // networks, as they were written
	deny       []string
	stale      time.Duration
	memory     int64 // bytes; 0: as the machine has it
	stall      time.Duration
	stallGiven bool
	conns      int // connections on all listeners; 0: as memory has it, below 0: any number
	help       bool
	version    bool
}

func flagDocs() []flagDoc {
	return []flagDoc{
		{name: "log", value: "text|json", words: []string{"text", "json"}, doc: "the format of messages on standard error", set: func(f *flags, v string) error {
			f.json = v == "json"
			return nil
		}},
		{name: "log-rate", value: "N", doc: "write at most this many lines a second of each kind, and 25 times as many at\nonce; the others are counted; the default is 20, 0 writes all", set: func(f *flags, v string) error {
			n, err := strconv.Atoi(v)
			if err != nil || n < 0 || n > 1_000_000 {
				return fmt.Errorf("bad number %q: a whole number from 0 to 1000000", v)
			}
			f.logRate = n
			return nil
		}},
		{name: "quiet", letter: "q", doc: "write only warnings and errors", set: func(f *flags, _ string) error { f.quiet = true; return nil }},
		{name: "pick", value: "HOW", words: []string{"turn", "least", "two", "first", "random", "peer"}, doc: "with several B, which one: each in turn, the one with the fewest\nconnections, the less busy of two drawn at random, the first that\nanswers, any, or always the same for one peer; the default is in turn", set: func(f *flags, v string) error {
			f.pick = v
			return nil
		}},
		{name: "check", value: "TIME", doc: "with several B, try each this often, and leave out those that do not answer", set: func(f *flags, v string) error {
			d, err := time.ParseDuration(v)
			if err != nil || d < 10*time.Millisecond {
				return fmt.Errorf("bad time %q: write it like 2s or 500ms, at least 10ms", v)
			}
			f.check = d
			return nil
		}},
		{name: "drain", value: "TIME", doc: "when asked to end, how long open connections may continue before they are cut;\nthe default is 8s, 0 cuts at once", set: func(f *flags, v string) error {
			d, err := time.ParseDuration(v)
			if err != nil || d < 0 || d > drainMost {
				return fmt.Errorf("bad time %q: write it like 8s or 500ms, from 0 to 24h", v)
			}
			f.drain, f.drains = d, true
			return nil
		}},
		{name: "loops", value: "N", doc: "serve on this many loops, each of which can keep one core busy; the default is\none for each core that the process may use (its affinity and, on Linux, the CPU\nquota of its cgroup). A connection is on one loop from beginning to end; new\nones go to the loop that has the fewest. Limits, rates, --pick, totals and\n--drain are those of all loops together. One loop serves what is one connection\n(- and whatever does not listen), exec, pty, serial, file, pipe, replay,\nuTP, datagrams, names, and proxies and faults with bind= or seed=", set: func(f *flags, v string) (err error) {
			f.loops, err = parseLoops(v)
			return err
		}},
		{name: "allow", value: "NETWORKS", doc: "let dial connect to these only, such as 10.0.0.0/8,::1; it may be given\nmore than once", set: func(f *flags, v string) error { return addNetworks(&f.allow, v) }},
		{name: "deny", value: "NETWORKS", doc: "let dial connect to none of these", set: func(f *flags, v string) error { return addNetworks(&f.deny, v) }},
		{name: "stale", value: "TIME", doc: "while no name server answers, keep using addresses that have expired, for\nthis long; the default is 24h, 0 never uses them", set: func(f *flags, v string) error {
			d, err := time.ParseDuration(v)
			if err != nil || d < 0 || d > staleMost {
				return fmt.Errorf("bad time %q: write it like 1h or 30m, from 0 to %v", v, span(staleMost))
			}
			f.stale = d
			return nil
		}},
		{name: "memory", value: "SIZE", doc: "use about this much memory at most, such as 512m: about half of it for what\nwaits to be read or sent. When that becomes short, those connections that keep\nthe most are paused, then new ones are refused, then the largest are reset;\nthe default is a quarter of what the machine or the cgroup has", set: func(f *flags, v string) error {
			n, ok := endpoint.ParseSize(v)
			if !ok || n < memoryLeast || n > memoryMost {
				return fmt.Errorf("bad size %q: write it like 512m or 2g, from 4m to 1024g", v)
			}
			f.memory = n
			return nil
		}},
		{name: "write-stall", value: "TIME", doc: "end a connection to a peer that accepts nothing of what waits for it for this\nlong, unless it is a pipe or a terminal; the default is 10m for a listener's\nconnections and their targets, and none for others; 0 waits for ever", set: func(f *flags, v string) error {
			d, err := time.ParseDuration(v)
			if err != nil || d < 0 || d > 0 && d < time.Second {
				return fmt.Errorf("bad time %q: write it like 10m or 30s, at least 1s, or 0", v)
			}
			f.stall, f.stallGiven = d, true
			return nil
		}},
		{name: "connections", value: "N", doc: "accept this many connections at once on all listeners together, or none for any\nnumber; the default follows from --memory", set: func(f *flags, v string) error {
			if v == "none" {
				f.conns = -1
				return nil
			}
			n, err := strconv.Atoi(v)
			if err != nil || n < 1 || n > math.MaxInt32 {
				return fmt.Errorf("bad number %q: a whole number above 0, or none", v)
			}
			f.conns = n
			return nil
		}},
		{name: "help", letter: "h", doc: "what weir is, or what a word means", set: func(f *flags, _ string) error { f.help = true; return nil }},
		{name: "version", letter: "V", doc: "the version of this weir", set: func(f *flags, _ string) error { f.version = true; return nil }},
	}
}

// usageError is a command line that makes no sense.
type usageError struct {
	problem string
	hint    string
	topic   string // for weir help
}

func (e *usageError) Error() string {
	s := "weir: " + endpoint.Printable(endpoint.Masked(e.problem))
	if e.hint != "" {
		s += "\n  " + endpoint.Printable(endpoint.Masked(e.hint))
	}
	help := "(weir help)"
	if e.topic != "" {
		help = "(weir help " + e.topic + ")"
	}
	return s + "        " + help
}

// parseFlags takes the flags out of a command line. Everything after -- is
// argv, which is never examined; without -- argv is nil.
func parseFlags(args []string) (f flags, words, argv []string, err error) {
	f.logRate = defaultLogRate
	docs := flagDocs()
	f.drain = drainTime
	f.loops = everyCore
	f.stale = staleUsual
	f.stall = stallUsual
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return f, words, slices.Clone(args[i+1:]), nil
		}
		if !strings.HasPrefix(arg, "-") || arg == "-" || strings.HasPrefix(arg, "-+") || strings.HasPrefix(arg, "-,") {
			words = append(words, arg) // - is an endpoint, and may have layers
			continue
		}
		name, value, valued := strings.Cut(arg, "=")
		at := slices.IndexFunc(docs, func(d flagDoc) bool {
			return name == "--"+d.name || d.letter != "" && name == "-"+d.letter
		})
		if at < 0 {
			return f, nil, nil, unknownFlag(name, docs)
		}
		doc := &docs[at]
		switch {
		case doc.value == "" && valued:
			return f, nil, nil, &usageError{problem: fmt.Sprintf("%s takes no value", name)}
		case doc.value != "" && !valued:
			if i+1 == len(args) || args[i+1] == "--" {
				return f, nil, nil, &usageError{problem: fmt.Sprintf("missing value of %s", name), hint: "write " + name + " " + doc.value}
			}
			i++
			value = args[i]
		}
		if doc.words != nil && !slices.Contains(doc.words, value) {
			e := &usageError{problem: fmt.Sprintf("bad value %q of %s", value, name), hint: "one of " + strings.Join(doc.words, ", ")}
			if near := endpoint.Nearest(value, doc.words); near != "" {
				e.hint = fmt.Sprintf("did you mean %q?", near)
			}
			return f, nil, nil, e
		}
		if err := doc.set(&f, value); err != nil {
			return f, nil, nil, &usageError{problem: fmt.Sprintf("%s: %v", name, err)}
		}
	}
	return f, words, nil, nil
}

func unknownFlag(name string, docs []flagDoc) error {
	e := &usageError{problem: fmt.Sprintf("unknown flag %s", name)}
	var names []string
	for _, d := range docs {
		names = append(names, d.name)
	}
	if near := endpoint.Nearest(strings.TrimLeft(name, "-"), names); near != "" {
		e.hint = fmt.Sprintf("did you mean --%s?", near)
	}
	return e
}
