package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/cmd/weir/internal/advice"
	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/sink"
)

// verbs are the words that are not endpoints.
func verbs() []string {
	return []string{"demo", "explain", "quote", "help", "completion", "dns", "version"}
}

// flushMost is how long the process waits at its end for the readers of
// standard error, logs and recordings.
const flushMost = time.Second

// run does what the command line says and returns the exit code. All its
// messages go through a sink, so an unread standard error stops nothing.
func (c *command) run() int {
	c.plainErr = c.stderr
	c.sink = sink.New(linesRaw{c}, sink.Config{Name: "stderr", Gap: func(b []byte, g sink.Gap) []byte {
		if slices.Contains(c.args, "json") || slices.Contains(c.args, "--log=json") {
			return fmt.Appendf(b, `{"level":"WARN","msg":"left out","entries":%d,"bytes":%d,"reason":%q}`+"\n", g.Entries, g.Bytes, g.String())
		}
		return fmt.Appendf(b, "weir: %s\n", g)
	}})
	c.sink.Start()
	c.stderr = c.sink
	code := c.do()
	ctx, cancel := context.WithTimeout(context.Background(), flushMost)
	defer cancel()
	for _, s := range c.opened {
		_ = s.Close(ctx) // missing reports what it did not write
		if c.rep != nil {
			c.rep.missing(s)
		}
	}
	if c.rep != nil {
		c.rep.rates.flush()
	}
	ctx, cancel = context.WithTimeout(context.Background(), flushMost)
	defer cancel()
	_ = c.sink.Close(ctx) // there is no one to tell
	return code
}

// do is run without its surroundings.
func (c *command) do() int {
	if len(c.args) > 0 && c.args[0] == "dns" {
		return c.dns(c.args[1:])
	}
	f, words, argv, err := parseFlags(c.args)
	if err != nil {
		return c.usage(err)
	}
	verb := ""
	if len(words) > 0 && slices.Contains(verbs(), words[0]) {
		verb, words = words[0], words[1:]
	}
	switch {
	case verb == "version" && len(words)+len(argv) > 0:
		return c.usage(&usageError{problem: fmt.Sprintf("version takes no words, such as %q", append(words, argv...)[0])})
	case f.version, verb == "version":
		return c.print(version() + "\n" + serving())
	case f.help && verb != "":
		return c.help([]string{verb})
	case f.help, verb == "help":
		return c.help(words)
	case verb == "quote":
		// Text to be quoted may begin with a dash: then it comes after --.
		return c.quote(append(words, argv...))
	case argv != nil && verb != "" && verb != "explain":
		return c.usage(&usageError{problem: verb + " takes nothing after --"})
	case verb == "demo":
		return c.demo(words, f)
	case verb == "completion":
		return c.completion(words)
	case verb == "" && len(words) == 0:
		return c.print(c.intro())
	}
	p, err := c.plan(words, argv, f)
	var refused *policyError
	if errors.As(err, &refused) {
		fmt.Fprintln(c.stderr, err)
		return exitPolicy
	}
	if err != nil {
		return c.usage(err)
	}
	if verb == "explain" {
		return c.print(p.explain())
	}
	if p.answersNames() {
		return c.serveNames(p, f)
	}
	if p.datagrams() {
		return c.packets(p, f)
	}
	return c.relay(p, f)
}

// print writes text to standard output.
func (c *command) print(text string) int {
	if _, err := fmt.Fprintln(c.stdout, strings.TrimRight(text, "\n")); err != nil {
		return exitFailure
	}
	return exitOK
}

func (c *command) usage(err error) int {
	fmt.Fprintln(c.stderr, err)
	return exitUsage
}

// plan is a valid command line: two sides, of which B may have several
// endpoints to choose from.
type plan struct {
	a  *endpoint.Endpoint
	bs []*endpoint.Endpoint
	f  flags
}

func (c *command) plan(words, argv []string, f flags) (*plan, error) {
	if len(words) == 1 && len(argv) == 0 {
		e := &usageError{problem: "one endpoint is given, but two are needed", hint: "weir A B connects A to B; - is standard input and output"}
		if _, err := c.table.Parse(words[0]); err != nil {
			if near := endpoint.Nearest(words[0], verbs()); near != "" {
				return nil, &usageError{problem: fmt.Sprintf("unknown word %q", words[0]), hint: fmt.Sprintf("did you mean weir %s?", near)}
			}
			return nil, err
		}
		return nil, e
	}
	if len(words) == 1 {
		if e, err := c.table.Parse(words[0]); err == nil && e.TakesCommand() {
			return nil, &usageError{problem: "two endpoints are needed", hint: "to use the program here write weir - " + words[0] + " -- " + strings.Join(argv, " ")}
		}
	}
	if len(words) < 2 {
		return nil, &usageError{problem: "two endpoints are needed", hint: "weir A B connects A to B; - is standard input and output"}
	}
	p := &plan{f: f}
	for i, w := range words {
		e, err := c.table.Parse(w)
		if err != nil {
			var at *endpoint.Error
			if i > 0 && argv == nil && errors.As(err, &at) && runsProgram(p.a, p.bs) && !strings.ContainsAny(w, ":,+") {
				at.Hint = "the program of pty or exec follows --: weir " + strings.Join(words[:i], " ") + " -- " + strings.Join(words[i:], " ")
			}
			return nil, err
		}
		if i == 0 {
			p.a = e
		} else {
			p.bs = append(p.bs, e)
		}
	}
	if err := p.command(argv); err != nil {
		return nil, err
	}
	return p, p.check()
}

// runsProgram reports whether one of the endpoints runs a program.
func runsProgram(a *endpoint.Endpoint, bs []*endpoint.Endpoint) bool {
	return a.TakesCommand() || slices.ContainsFunc(bs, (*endpoint.Endpoint).TakesCommand)
}

// command gives what stands after -- to the endpoint that runs it.
func (p *plan) command(argv []string) error {
	var runs *endpoint.Endpoint
	for _, e := range append([]*endpoint.Endpoint{p.a}, p.bs...) {
		if !e.TakesCommand() {
			continue
		}
		if runs != nil {
			return &usageError{problem: "two endpoints would run the program after --", hint: "join two programs with two weirs, or with a pipe of the shell", topic: e.Kind().Name}
		}
		runs = e
	}
	switch {
	case runs == nil && argv != nil:
		return &usageError{problem: "a program follows --, but no endpoint here runs one", hint: "exec and pty do: weir 8080 exec -- cat", topic: "exec"}
	case runs == nil:
		return nil
	case len(argv) == 0 || argv[0] == "":
		return &usageError{problem: runs.Kind().Name + " has no program to run", hint: "put it after --, with its arguments: weir 8080 " + runs.Kind().Name + " -- cat", topic: runs.Kind().Name}
	}
	runs.SetCommand(argv)
	return nil
}

// check finds what is wrong with the endpoints together.
func (p *plan) check() error {
	f := p.f
	if len(p.bs) > 1 {
		for _, b := range p.bs {
			if b.Role() != endpoint.Dial {
				return &usageError{
					problem: fmt.Sprintf("%s cannot be one of several endpoints to choose from", b.Label()),
					hint:    "only endpoints that weir dials can be listed as alternatives",
				}
			}
		}
	} else if f.pick != "" || f.check != 0 {
		return &usageError{problem: "--pick and --check choose from several endpoints, but there is only one", hint: "weir A B1 B2 --pick least"}
	}
	a, b := p.a, p.bs[0]
	if err := p.checkDatagrams(); err != nil {
		return err
	}
	if a.Kind().Name == "stdio" && b.Kind().Name == "stdio" {
		return &usageError{problem: "standard input and output cannot be on both sides"}
	}
	for _, e := range p.bs {
		for _, ends := range [2][2]*endpoint.Endpoint{{p.a, e}, {e, p.a}} {
			if ends[0].LeadsTo(ends[1]) {
				return &usageError{
					problem: fmt.Sprintf("%s leads to itself: it is where %s listens", ends[0].Text, ends[1].Text),
					hint:    "each connection would make another one, without end; did you mean another port, or another machine?",
				}
			}
		}
	}
	if a.Role() == endpoint.Open && b.Role() == endpoint.Open && a.Kind() == b.Kind() && a.Base.ArgText() == b.Base.ArgText() && a.Base.ArgText() != "" {
		return &usageError{problem: fmt.Sprintf("%s cannot be on both sides", a.Label())}
	}
	if err := p.checkProxies(); err != nil {
		return err
	}
	_, err := p.loopsOf(f)
	return err
}

// many reports whether the plan serves any number of connections, and on which
// side it accepts them: one side listens and the other connects.
func (p *plan) many() bool {
	a, b := p.a.Role(), p.bs[0].Role()
	return a == endpoint.Listen && b == endpoint.Dial || a == endpoint.Dial && b == endpoint.Listen
}

func (c *command) quote(words []string) int {
	if len(words) == 0 {
		return c.usage(&usageError{problem: "quote what?", hint: "weir quote STR; after -- it may begin with a dash", topic: "quote"})
	}
	for _, w := range words {
		if code := c.print(endpoint.Quote(w)); code != exitOK {
			return code
		}
	}
	return exitOK
}

// version says the version of this weir, from what the Go tool recorded.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "weir, of an unknown build"
	}
	v := info.Main.Version
	if v == "" || v == "(devel)" {
		v = "of a working copy"
	}
	text := "weir " + v
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			text += ", revision " + s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			text += " with changes"
		}
	}
	return text + ", " + info.GoVersion + " " + runtime.GOOS + "/" + runtime.GOARCH
}

// serving says which backend is used here and what the probes found.
func serving() string {
	l, err := weir.NewLoop(weir.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return "backend: none: " + advice.Why(err) + "\n"
	}
	info := l.Backend()
	text := "backend: " + info.Name + ", of " + strings.Join(weir.Backends(), ", ") + " (WEIR_BACKEND chooses)\n"
	for _, p := range info.Probed {
		text += "  " + p + "\n"
	}
	if err := l.Close(); err != nil {
		text += "  closing it: " + advice.Why(err) + "\n"
	}
	return text
}
