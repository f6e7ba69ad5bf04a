package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weir-io/weir/endpoint"
)

// intro is what weir prints without arguments.
func (c *command) intro() string {
	return `weir connects any two endpoints, and never loses a reply:  weir A B

  weir 8080 localhost:3000             forward port 8080, on loopback only, to port 3000
  weir - localhost:6379                type to a server, or pipe into it
  weir :9000 /run/app.sock             forward port 9000 of every interface to a UNIX socket
  weir unix-listen:/tmp/db.sock localhost:5432,retry=30s
                                       a socket file in front of a server that may start later

  weir demo                            see it work, with no network needed
  weir explain A B                     what a command would do; opens nothing
  weir help                            the grammar, the flags; help kinds, help layers, help NAME`
}

const grammar = `usage: weir A B [B2 …] [flags] [-- program and arguments, of exec or pty]

  endpoint = base *( "+" layer )
  part     = name [ ":" arg ] *( "," key [ "=" value ] )

  The leftmost part is nearest the wire. A base that listens makes its layers
  servers, one that connects makes them clients. Short forms of a base:

    8080        listen on port 8080, loopback only
    :8080       listen on port 8080 of every interface
    host:8080   connect; the port stands after the last colon
    -           standard input and output
    /path       connect to a UNIX socket

  In a value % + , are written %25 %2B %2C (weir quote does it); ~/ at its start
  is your home directory. Secrets are named, env:NAME or file:PATH, never written.
`

const verbHelp = `words:
  weir demo                        a server, a relay and a client, and what happened
  weir explain A B                 draw what A B would do, and open nothing
  weir quote STR                   escape STR for an endpoint
  weir help [kinds|layers|NAME]    this text; a list; what NAME is
  weir completion bash|zsh|fish    a script that completes weir's words in a shell
  weir dns NAME [TYPE]             what a name stands for; --server ADDR:PORT[+tls] asks there, -v shows how
  weir version                     the version of this weir
`

const exitHelp = `signals: SIGINT (Ctrl-C), SIGTERM and SIGHUP end weir. Anything that is not connected
yet, and a command where nothing listens, ends at once. A server stops accepting, says
what it is waiting for, and after --drain TIME cuts what is still open; a second signal
cuts at once. Input typed after the first signal is not passed on. Signals within a
moment count as one; SIGHUP under nohup stays ignored. SIGQUIT (Ctrl-\) prints what is
open. A service manager is told (Type=notify, WatchdogSec=).

exit codes: 0 all went well, 1 something failed or was cut, 2 the command line is wrong,
3 refused by policy; if nothing listens and one side is exec or pty, the program's own.
`

func (c *command) help(words []string) int {
	if len(words) == 0 {
		var b strings.Builder
		b.WriteString(grammar + "\nflags, anywhere on the line:\n" + flagHelp() + "\n" + verbHelp + "\n")
		b.WriteString("kinds: " + strings.Join(c.table.KindNames(), " ") + "\n")
		b.WriteString("layers: " + orNone(strings.Join(c.table.LayerNames(), " ")) + "\n\n" + exitHelp)
		return c.print(b.String())
	}
	var texts []string
	for _, w := range words {
		text, err := c.helpOn(w)
		if err != nil {
			return c.usage(err)
		}
		texts = append(texts, text)
	}
	return c.print(strings.Join(texts, "\n"))
}

func orNone(s string) string {
	if s == "" {
		return "none yet"
	}
	return s
}

// helpOn explains a word.
func (c *command) helpOn(word string) (string, error) {
	name := strings.TrimLeft(word, "-+")
	switch {
	case word == "kinds":
		var b strings.Builder
		b.WriteString("What an endpoint can begin with; weir help NAME says more.\n\n")
		for _, k := range c.table.Kinds {
			fmt.Fprintf(&b, "  %-12s %-7s %s\n", k.Name, k.Role, k.Summary)
		}
		return b.String(), nil
	case word == "layers":
		if len(c.table.Layers) == 0 {
			return "There are no layers yet. One is put after an endpoint with +: host:443+layer.\n", nil
		}
		var b strings.Builder
		b.WriteString("What can be put on an endpoint with +; weir help NAME says more.\n\n")
		for _, l := range c.table.Layers {
			fmt.Fprintf(&b, "  %-12s %-10s %s\n", l.Name, l.Carries(), l.Summary)
		}
		return b.String(), nil
	case slices.Contains(verbs(), name):
		for line := range strings.Lines(verbHelp) {
			if strings.HasPrefix(strings.TrimSpace(line), "weir "+name) {
				return strings.TrimSpace(line) + "\n", nil
			}
		}
	}
	if k := c.table.Kind(name); k != nil {
		return partHelp(k.Name, k.Summary, k.Doc, "", k.Arg, k.Options, k.Example), nil
	}
	if l := c.table.Layer(name); l != nil {
		return partHelp(l.Name, l.Summary, l.Doc, "+", l.Arg, l.Options, l.Example) + carriesHelp(l), nil
	}
	docs := flagDocs()
	if i := slices.IndexFunc(docs, func(d flagDoc) bool { return d.name == name || d.letter == name }); i >= 0 {
		return oneFlag(docs[i]), nil
	}
	if text := c.optionHelp(name); text != "" {
		return text, nil
	}
	all := append(append(append([]string{"kinds", "layers"}, verbs()...), c.table.KindNames()...), c.table.LayerNames()...)
	for _, d := range docs {
		all = append(all, d.name)
	}
	for _, p := range c.optionDocs() {
		all = append(all, p.doc.Name)
	}
	e := &usageError{problem: fmt.Sprintf("nothing is called %q", word)}
	if near := endpoint.Nearest(name, all); near != "" {
		e.hint = fmt.Sprintf("did you mean %q?", near)
	}
	return "", e
}

// partOption is an option, and the parts that take it.
type partOption struct {
	part string
	doc  endpoint.OptionDoc
}

func (c *command) optionDocs() (all []partOption) {
	for _, k := range c.table.Kinds {
		for _, o := range k.Options {
			all = append(all, partOption{k.Name, o})
		}
	}
	for _, l := range c.table.Layers {
		for _, o := range l.Options {
			all = append(all, partOption{"+" + l.Name, o})
		}
	}
	return all
}

// optionHelp explains an option, on each part that has one of that name.
func (c *command) optionHelp(name string) string {
	name = strings.TrimSuffix(strings.TrimPrefix(name, ","), "=")
	var docs []string
	parts := map[string][]string{} // by its meaning there
	for _, p := range c.optionDocs() {
		if p.doc.Name != name {
			continue
		}
		word := p.doc.Name
		if p.doc.Type.TakesValue() {
			word += "=" + p.doc.Type.Name
		}
		doc := word + "    " + p.doc.Doc
		if parts[doc] == nil {
			docs = append(docs, doc)
		}
		parts[doc] = append(parts[doc], p.part)
	}
	var b strings.Builder
	for _, doc := range docs {
		fmt.Fprintf(&b, "%s\n  an option of %s\n", doc, strings.Join(parts[doc], ", "))
	}
	return b.String()
}

// carriesHelp says what a layer can stand on.
func carriesHelp(l *endpoint.Layer) string {
	switch l.Carries() {
	case endpoint.Streams:
		return "on streams only\n"
	case endpoint.Packets:
		return "on datagrams only: udp, udp-listen\n"
	default:
		return "on streams and on datagrams\n"
	}
}

func partHelp(name, summary, doc, plus string, arg endpoint.Arg, options []endpoint.OptionDoc, example string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s", plus, name)
	switch {
	case arg.Name != "" && arg.Optional:
		fmt.Fprintf(&b, "[:%s]", arg.Name)
	case arg.Name != "":
		fmt.Fprintf(&b, ":%s", arg.Name)
	}
	if len(options) > 0 {
		b.WriteString("[,option…]")
	}
	fmt.Fprintf(&b, "    %s\n", summary)
	if doc != "" {
		b.WriteString("\n")
		for line := range strings.Lines(doc) {
			b.WriteString("  " + strings.TrimRight(line, "\n") + "\n")
		}
	}
	if arg.Type != nil {
		fmt.Fprintf(&b, "\n  %s: %s\n", arg.Name, arg.Type.Doc)
	}
	if len(options) > 0 {
		b.WriteString("\noptions:\n")
	}
	for _, o := range options {
		word := o.Name
		if o.Type.TakesValue() {
			word += "=" + o.Type.Name
		}
		text := o.Doc
		if o.Only != endpoint.Both {
			text += " (" + o.Only.String() + " only)"
		}
		if o.Required {
			text += " (required)"
		}
		if len(o.Conflicts) > 0 {
			text += "; not with " + strings.Join(o.Conflicts, ", ")
		}
		fmt.Fprintf(&b, "  %-20s %s\n", word, text)
	}
	fmt.Fprintf(&b, "\nexample: %s\n", example)
	return b.String()
}

func flagHelp() string {
	var b strings.Builder
	for _, d := range flagDocs() {
		b.WriteString(oneFlag(d))
	}
	return b.String()
}

func oneFlag(d flagDoc) string {
	word := "--" + d.name
	if d.letter != "" {
		word = "-" + d.letter + ", " + word
	}
	switch {
	case d.value == "HOW":
		word += " " + strings.Join(d.words, "|")
	case d.value != "":
		word += " " + d.value
	}
	doc := d.doc
	if len(word) > 20 {
		doc = "\n" + doc
	}
	return fmt.Sprintf("  %-20s %s\n", word, strings.ReplaceAll(doc, "\n", "\n"+strings.Repeat(" ", 23)))
}
