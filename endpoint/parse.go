package endpoint

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/weir-io/weir/layer/packet"
)

// Endpoint is a parsed endpoint string: a base and the layers on it, nearest
// the wire first.
type Endpoint struct {
	Text   string // as written
	Base   *Part
	Layers []*Part

	kind   *Kind
	role   Role
	layers []*Layer

	looked   bool       // the base has been prepared
	prepared []Prepared // of the layers, once Prepare has been called
	packets  []packet.Layer
	counts   []*packet.Counts
}

// Part is a base or a layer.
type Part struct {
	Name    Token // the kind's or layer's name; its Raw is empty for a short form
	Short   bool  // a base written without its kind's name
	Arg     *Token
	Options []Option
	Pos     int // where the part begins in the string, in bytes
	End     int

	// For a layer, set before it is prepared: where the connection leads as
	// seen from the layer, the "host:port" of the base or of the proxy before
	// it; "" if unknown. targetAsked says that it is where the other side asks
	// to go, overTLS that there is TLS to it below.
	target      string
	targetAsked bool
	overTLS     bool

	// Of a base that runs programs: what to run, as whom, and how many run.
	argv     []string
	account  *account
	peers    *peers // those that may connect; nil: all
	children int
}

// Option is a key with its value. Value is nil for a flag.
type Option struct {
	Key   Token
	Value *Token
}

// Kind is the table's entry for the base.
func (e *Endpoint) Kind() *Kind { return e.kind }

// Layer is the table's entry for e.Layers[i].
func (e *Endpoint) Layer(i int) *Layer { return e.layers[i] }

// Role is what the base does, as determined by parsing; layers follow it.
func (e *Endpoint) Role() Role { return e.role }

// String writes the endpoint so that it parses to an equal one.
func (e *Endpoint) String() string {
	var b strings.Builder
	e.Base.write(&b)
	for _, l := range e.Layers {
		b.WriteByte('+')
		l.write(&b)
	}
	return b.String()
}

// Label names the endpoint for people, without its options.
func (e *Endpoint) Label() string {
	var b strings.Builder
	switch {
	case len(e.Base.argv) > 0:
		b.WriteString(e.Base.Name.Text + " " + programName(e.Base))
	case e.Base.Has("link"):
		b.WriteString(e.Base.Name.Text + " " + e.Base.Value("link"))
	case e.Base.Arg == nil || e.Base.Arg.Text == "":
		b.WriteString(e.Base.Name.Text)
	case e.kind.Name != "tcp" && e.kind.Arg.Type == HostPort:
		b.WriteString(e.kind.Name + ":" + hostPort(e.Base.Arg.Text))
	case e.kind.Arg.Type == HostPort:
		b.WriteString(hostPort(e.Base.Arg.Text))
	case e.Base.Short, e.kind.Name == "unix":
		b.WriteString(e.Base.Arg.Text)
	default:
		b.WriteString(e.Base.Name.Text + ":" + e.Base.Arg.Text)
	}
	for _, l := range e.Layers {
		b.WriteString("+" + l.Name.Text)
	}
	return b.String()
}

func (p *Part) write(b *strings.Builder) {
	switch {
	case p.Short && p.Arg == nil:
		b.WriteString("-")
	case p.Short:
		b.WriteString(Quote(p.Arg.Text))
	default:
		b.WriteString(p.Name.Text)
		if p.Arg != nil {
			b.WriteString(":" + Quote(p.Arg.Text))
		}
	}
	for _, o := range p.Options {
		b.WriteString("," + o.Key.Text)
		if o.Value != nil {
			b.WriteString("=" + Quote(o.Value.Text))
		}
	}
}

// Parse reads an endpoint string. The error is an *Error.
func (t *Table) Parse(s string) (*Endpoint, error) {
	p := parser{table: t, input: s}
	e, err := p.endpoint()
	if err != nil {
		return nil, err
	}
	return e, nil
}

// parser cuts a string at + and then at commas; neither can occur in a value.
type parser struct {
	table *Table
	input string
}

func (p *parser) endpoint() (*Endpoint, *Error) {
	e := &Endpoint{Text: p.input}
	pos := 0
	for first := true; ; first = false {
		end := len(p.input)
		if i := strings.IndexByte(p.input[pos:], '+'); i >= 0 {
			end = pos + i
		}
		var err *Error
		if first {
			err = p.base(e, pos, end)
		} else {
			err = p.layer(e, pos, end)
		}
		if err != nil {
			return nil, err
		}
		if end == len(p.input) {
			return e, nil
		}
		pos = end + 1
	}
}

func (p *parser) fail(pos, end int, problem, hint, topic string) *Error {
	return &Error{Input: p.input, Pos: pos, End: end, Problem: problem, Hint: hint, Topic: topic}
}

// head cuts off what comes before the first comma of a part.
func (p *parser) head(pos, end int) (headEnd int) {
	if i := strings.IndexByte(p.input[pos:end], ','); i >= 0 {
		return pos + i
	}
	return end
}

func (p *parser) token(pos, end int) (Token, *Error) {
	raw := p.input[pos:end]
	text, at, ok := unescape(raw)
	if !ok {
		return Token{}, p.fail(pos+at, min(pos+at+3, end), "bad escape",
			"only %25, %2B and %2C stand for % + and , (weir quote escapes for you)", "")
	}
	return Token{Text: text, Raw: raw, Pos: pos, End: end}, nil
}

// base reads the base, and tells its short forms apart.
func (p *parser) base(e *Endpoint, pos, end int) *Error {
	headEnd := p.head(pos, end)
	head := p.input[pos:headEnd]
	if head == "" {
		return p.fail(pos, headEnd, "missing endpoint", "such as 8080, host:80, /run/app.sock or -", "kinds")
	}
	part := &Part{Pos: pos, End: end}
	name, _, colon := strings.Cut(head, ":")
	kind := p.table.Kind(name)
	argPos := pos
	switch {
	case kind != nil:
		part.Name = Token{Text: name, Raw: name, Pos: pos, End: pos + len(name)}
		argPos += len(name) + 1
	case head == "-":
		kind, argPos = p.table.Kind("stdio"), headEnd+1
	case head[0] == '/', strings.HasPrefix(head, "~/"):
		kind = p.table.Kind("unix")
	case head[0] >= '0' && head[0] <= '9' && !colon && !strings.Contains(head, "."):
		kind = p.table.Kind("tcp-listen") // a port, or something meant as one
	case head[0] == ':':
		kind = p.table.Kind("tcp-listen")
		if f := checkPort(head[1:], 1, true); f != nil && strings.Count(head, ":") > 1 {
			return p.fail(pos, headEnd, fmt.Sprintf("bad port %q", head[1:]), "for an IPv6 address write tcp:"+head, "")
		}
	case colon && p.dials(head):
		if host, port, _ := splitHostPort(head); unspecified(host) {
			return p.fail(pos, headEnd, head+" would connect, but "+host+" is not a host to connect to", "to listen on every interface write :"+port, "tcp-listen")
		}
		kind = p.table.Kind("tcp")
	}
	if kind == nil {
		return p.unknownBase(head, name, pos)
	}
	if part.Name.Raw == "" {
		part.Short = true
		part.Name = Token{Text: kind.Name, Pos: pos, End: headEnd}
	}
	if strings.HasPrefix(p.input[min(argPos, headEnd):headEnd], "//") && part.Name.Raw != "" {
		rest := p.input[argPos+len("//") : headEnd]
		if kind.Arg.Type == HostPort || kind.Name == "unix" && strings.HasPrefix(rest, "/") {
			return p.fail(pos, argPos+len("//"), name+":// begins a URL, and an endpoint is not a URL", "write "+fromURL(name, rest), name)
		}
	}
	if argPos <= headEnd {
		tok, err := p.token(argPos, headEnd)
		if err != nil {
			return err
		}
		part.Arg = &tok
	}
	e.Base, e.kind = part, kind
	if err := p.checkArg(part, kind.Arg, kind.Name); err != nil {
		return err
	}
	if err := p.options(part, headEnd, kind.Options, kind.Name); err != nil {
		return err
	}
	if kind.Check != nil {
		if err := p.fault(part, kind.Check(part), kind.Name); err != nil {
			return err
		}
	}
	e.role = kind.Role
	if kind.RoleOf != nil {
		e.role = kind.RoleOf(part)
	}
	return nil
}

// dials reports whether a word that is not a kind is a host and a port, or was
// meant as one: what follows its last colon begins with a digit, and if the
// rest cannot be a host, it does not resemble a kind either.
func (p *parser) dials(head string) bool {
	host, port, _ := splitHostPort(head)
	if port == "" || port[0] < '0' || port[0] > '9' {
		return false
	}
	if text, _, ok := unescape(host); ok {
		return checkHost(text) == nil || !strings.Contains(text, ":") && nearest(host, p.table.KindNames()) == ""
	}
	return true // report the bad escape
}

// unspecified reports whether a host stands for every address, or is meant to.
func unspecified(host string) bool {
	a, err := netip.ParseAddr(unbracket(host))
	return host == "*" || err == nil && a.IsUnspecified()
}

// fromURL writes a URL as an endpoint, as far as possible, without its user
// information.
func fromURL(scheme, rest string) string {
	host, path, _ := strings.Cut(rest, "/")
	host = host[strings.LastIndexByte(host, '@')+1:]
	port, after := "port", ""
	switch scheme {
	case "ws", "http":
		port = "80"
	case "wss", "https":
		port, after = "443", "+tls"
	case "socks", "socks4", "socks4a", "socks5", "socks5h":
		port, after = "1080", "+"+strings.TrimSuffix(scheme, "h")+":host:port"
		if scheme == "socks" {
			after = "+socks5:host:port"
		}
	case "unix":
		return "/" + path
	}
	if scheme == "ws" || scheme == "wss" {
		after += "+ws"
		if path != "" {
			after += ":/" + path
		}
	}
	switch {
	case host == "":
		host = "host:" + port
	case strings.LastIndexByte(host, ':') <= strings.LastIndexByte(host, ']'):
		host += ":" + port
	}
	return host + after
}

func (p *parser) unknownBase(head, name string, pos int) *Error {
	err := p.fail(pos, pos+len(name), fmt.Sprintf("unknown kind %q", name), "", "kinds")
	switch near := nearest(name, p.table.KindNames()); {
	case strings.HasPrefix(head, name+"://"):
		rest := head[len(name)+len("://"):]
		err.Hint = "an endpoint is not a URL: write " + fromURL(name, rest)
		if user := strings.LastIndexByte(rest, '@'); user >= 0 {
			// It may contain a password.
			err.Pos += len(name) + len("://")
			err.End = err.Pos + user
			err.Hint += ",user=NAME,password=env:NAME"
			err.secret = true
		}
	case name == "*":
		_, port, _ := strings.Cut(head, ":")
		err.Hint = "for every interface write :" + port
	case name == "system", name == "shell", name == "cmd":
		err.Hint = "to start a program write exec, and the program after --"
		err.Topic = "exec"
	case p.table.Layer(name) != nil:
		err.Problem = fmt.Sprintf("%q is a layer, not a kind", name)
		err.Hint = "put it after an endpoint: host:port+" + name
	case near != "":
		err.Hint = fmt.Sprintf("did you mean %q?", near)
	case strings.HasPrefix(head, "./"), strings.HasPrefix(head, "../"), strings.HasPrefix(head, "@"):
		err.Hint = "for a UNIX socket write unix:" + head
	case strings.Contains(head, ":"):
		err.Hint = "or, for a host, " + portHint
		err.Pos, err.End = pos, pos+len(head)
	default:
		err.Hint = "to connect to a host write " + head + ":port"
	}
	return err
}

func (p *parser) layer(e *Endpoint, pos, end int) *Error {
	headEnd := p.head(pos, end)
	head := p.input[pos:headEnd]
	name, _, colon := strings.Cut(head, ":")
	if name == "" {
		return p.fail(pos, max(headEnd, pos+1), "missing layer after +", "a + in a value is written %2B", "layers")
	}
	layer := p.table.Layer(name)
	if layer == nil {
		err := p.fail(pos, pos+len(name), fmt.Sprintf("unknown layer %q", name), "", "layers")
		if p.table.Kind(name) != nil {
			err.Hint = fmt.Sprintf("%q is a kind, which can only stand first", name)
		} else if near := nearest(name, p.table.LayerNames()); near != "" {
			err.Hint = fmt.Sprintf("did you mean %q?", near)
		}
		return err
	}
	part := &Part{Name: Token{Text: name, Raw: name, Pos: pos, End: pos + len(name)}, Pos: pos, End: end}
	role := e.Role()
	if len(layer.Roles) > 0 && !slices.Contains(layer.Roles, role) {
		hint := "it goes on an endpoint that listens"
		if !slices.Contains(layer.Roles, Listen) {
			hint = "it goes on an endpoint that connects"
		}
		return p.fail(pos, pos+len(name), fmt.Sprintf("layer %q cannot be used on %s", name, e.Base.Name.Text), hint, name)
	}
	if colon {
		tok, err := p.token(pos+len(name)+1, headEnd)
		if err != nil {
			return err
		}
		part.Arg = &tok
	}
	if err := p.checkArg(part, layer.Arg, layer.Name); err != nil {
		return err
	}
	if err := p.options(part, headEnd, layer.Options, layer.Name); err != nil {
		return err
	}
	if err := p.checkCarries(e, part, layer); err != nil {
		return err
	}
	if layer.Check != nil {
		if err := p.fault(part, layer.Check(part, role), layer.Name); err != nil {
			return err
		}
	}
	e.Layers = append(e.Layers, part)
	e.layers = append(e.layers, layer)
	return nil
}

func (p *parser) checkArg(part *Part, doc Arg, name string) *Error {
	switch {
	case part.Arg != nil && doc.Name == "" && (name == "exec" || name == "pty"):
		return p.fail(part.Arg.Pos-1, part.Arg.End, name+" takes its program after --", "write "+name+" -- "+part.Arg.Text, name)
	case part.Arg != nil && doc.Name == "":
		return p.fail(part.Arg.Pos-1, part.Arg.End, fmt.Sprintf("%s takes nothing after the colon", name), "", name)
	case part.Arg == nil && doc.Name != "" && !doc.Optional:
		return p.fail(part.Name.Pos, part.Name.End, fmt.Sprintf("missing %s after %s", doc.Name, name), fmt.Sprintf("write %s:%s", name, doc.Name), name)
	case part.Arg == nil:
		return nil
	case part.Arg.Text == "":
		return p.fail(part.Arg.Pos-1, part.Arg.End, fmt.Sprintf("missing %s after %s:", doc.Name, name), fmt.Sprintf("write %s:%s", name, doc.Name), name)
	}
	topic := name
	if part.Short {
		topic = ""
	}
	f := doc.Type.check(part.Arg.Text)
	if f != nil {
		f.Token = part.Arg
	}
	return p.fault(part, f, topic)
}

// options reads ",key=value" up to the end of the part.
func (p *parser) options(part *Part, pos int, docs []OptionDoc, name string) *Error {
	for pos < part.End {
		pos++ // the comma
		end := part.End
		if i := strings.IndexByte(p.input[pos:part.End], ','); i >= 0 {
			end = pos + i
		}
		if err := p.option(part, pos, end, docs, name); err != nil {
			return err
		}
		pos = end
	}
	for i := range docs {
		if docs[i].Required && !part.Has(docs[i].Name) {
			return p.fail(part.Pos, part.End, fmt.Sprintf("%s needs the option %q", name, docs[i].Name),
				fmt.Sprintf("add ,%s=%s", docs[i].Name, docs[i].Type.Name), name)
		}
	}
	return nil
}

func (p *parser) option(part *Part, pos, end int, docs []OptionDoc, name string) *Error {
	key, _, valued := strings.Cut(p.input[pos:end], "=")
	if key == "" {
		return p.fail(pos, max(end, pos+1), "missing option after the comma", "a comma in a value is written %2C", name)
	}
	o := Option{Key: Token{Text: key, Raw: key, Pos: pos, End: pos + len(key)}}
	i := slices.IndexFunc(docs, func(d OptionDoc) bool { return d.Name == key })
	if i < 0 && !valued {
		if i = slices.IndexFunc(docs, func(d OptionDoc) bool { return d.Bare != nil && d.Bare(key) }); i >= 0 {
			return p.bare(part, &docs[i], &o.Key, name)
		}
	}
	if i < 0 {
		return p.unknownOption(&o.Key, docs, name)
	}
	doc := &docs[i]
	if part.Has(key) && !doc.Many {
		return p.fail(pos, end, fmt.Sprintf("option %q is given twice", key), "", "")
	}
	for _, other := range part.Options {
		if slices.Contains(doc.Conflicts, other.Key.Text) || conflicts(docs, other.Key.Text, key) {
			return p.fail(pos, end, fmt.Sprintf("options %q and %q cannot be combined", other.Key.Text, key), "", name)
		}
	}
	switch {
	case doc.Type.flag && valued:
		return p.fail(pos+len(key), end, fmt.Sprintf("option %q takes no value", key), "", name)
	case !doc.Type.flag && (!valued || pos+len(key)+1 == end):
		return p.fail(pos, end, fmt.Sprintf("missing value of option %q", key), fmt.Sprintf("write %s=%s: %s", key, doc.Type.Name, doc.Type.Doc), name)
	case valued:
		tok, err := p.token(pos+len(key)+1, end)
		if err != nil {
			return err
		}
		o.Value = &tok
		if f := doc.Type.check(tok.Text); f != nil {
			f.Token = &tok
			err := p.fault(part, f, name)
			err.secret = doc.Type.secret
			return err
		}
	}
	part.Options = append(part.Options, o)
	return nil
}

// bare takes a word as the value of the option that doc describes.
func (p *parser) bare(part *Part, doc *OptionDoc, word *Token, name string) *Error {
	if part.Has(doc.Name) {
		return p.fail(word.Pos, word.End, fmt.Sprintf("option %q stands twice", doc.Name), word.Text+" alone means "+doc.Name+"="+word.Text, "")
	}
	if f := doc.Type.check(word.Text); f != nil {
		f.Token = word
		return p.fault(part, f, name)
	}
	part.Options = append(part.Options, Option{Key: Token{Text: doc.Name, Raw: word.Raw, Pos: word.Pos, End: word.End}, Value: word})
	return nil
}

// conflicts reports whether the option named other rules out key.
func conflicts(docs []OptionDoc, other, key string) bool {
	i := slices.IndexFunc(docs, func(d OptionDoc) bool { return d.Name == other })
	return i >= 0 && slices.Contains(docs[i].Conflicts, key)
}

func (p *parser) unknownOption(key *Token, docs []OptionDoc, name string) *Error {
	err := p.fail(key.Pos, key.End, fmt.Sprintf("unknown option %q of %s", key.Text, name), "", name)
	var names []string
	for _, d := range docs {
		names = append(names, d.Name)
	}
	if near := nearest(key.Text, names); near != "" {
		err.Hint = fmt.Sprintf("did you mean %q?", near)
		return err
	}
	for _, k := range p.table.Kinds {
		if slices.ContainsFunc(k.Options, func(d OptionDoc) bool { return d.Name == key.Text }) {
			err.Hint = fmt.Sprintf("%s has it; an option is written after the part it belongs to", k.Name)
			return err
		}
	}
	for _, l := range p.table.Layers {
		if slices.ContainsFunc(l.Options, func(d OptionDoc) bool { return d.Name == key.Text }) {
			err.Hint = fmt.Sprintf("+%s has it; an option is written after the part it belongs to", l.Name)
			return err
		}
	}
	return err
}

// fault turns what a check found into an error with a position.
func (p *parser) fault(part *Part, f *Fault, topic string) *Error {
	if f == nil {
		return nil
	}
	pos, end := part.Pos, part.End
	if f.Token != nil {
		pos, end = f.Token.Pos, f.Token.End
		if f.To > f.From || f.From > 0 {
			pos, end = f.Token.source(f.From, f.To)
		}
	}
	return p.fail(pos, end, f.Problem, f.Hint, topic)
}
