package endpoint

import (
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Type is a type of argument or value.
type Type struct {
	Name string // for help: "duration"
	Doc  string // how it is written: "30s, 1m30s, 250ms"
	flag bool   // takes no value
	// secret values must not be shown
	secret bool
	check  func(text string) *Fault
}

// TakesValue reports whether an option of the type is written with a value.
func (t *Type) TakesValue() bool { return !t.flag }

// The types. Nothing changes these values.
var (
	// Flag is an option without a value.
	Flag = &Type{Name: "flag", Doc: "no value", flag: true}
	// Text is any text that is not empty.
	Text = &Type{Name: "text", Doc: "text; % + , are written %25 %2B %2C", check: checkText}
	// Path is the path of a file; ~/ at the start means the home directory.
	Path = &Type{Name: "path", Doc: "a path; ~/ is your home directory", check: checkPath}
	// Duration is a length of time, as time.ParseDuration reads it, above 0 and
	// up to 2562047h, which is 292 years. Period sets its own bound.
	Duration = &Type{Name: "duration", Doc: "30s, 1m30s, 250ms", check: checkDuration}
	// Int is a whole number from 1 to 2147483647.
	Int = Number(1, math.MaxInt32)
	// Mode is the permission bits of a file, in octal.
	Mode = &Type{Name: "mode", Doc: "permission bits in octal: 0600", check: checkMode}
	// IP is an address without a port.
	IP = &Type{Name: "ip", Doc: "an IPv4 or IPv6 address", check: checkIP}
	// HostPort is where to connect to.
	HostPort = &Type{Name: "host:port", Doc: "the port stands after the last colon", check: checkHostPort}
	// ListenPort is where to listen: a port alone means loopback, :port every
	// interface.
	ListenPort = &Type{Name: "[host:]port", Doc: "8080 is loopback only, :8080 every interface, 0 any free port", check: checkListenPort}
	// Secret is a reference to a secret, which itself is never in an endpoint
	// string.
	Secret = &Type{Name: "secret", Doc: "env:NAME or file:PATH", secret: true, check: checkSecret}
)

// Choice returns the type of a value that is one of words.
func Choice(words ...string) *Type {
	return &Type{Name: strings.Join(words, "|"), Doc: "one of " + strings.Join(words, ", "), check: func(s string) *Fault {
		for _, w := range words {
			if s == w {
				return nil
			}
		}
		f := &Fault{Problem: fmt.Sprintf("bad value %q", s), Hint: "one of " + strings.Join(words, ", ")}
		if w := Nearest(s, words); w != "" {
			f.Hint = fmt.Sprintf("did you mean %q?", w)
		}
		return f
	}}
}

// Number returns the type of a whole number from least to most.
func Number(least, most int64) *Type {
	doc := fmt.Sprintf("a whole number from %d to %d", least, most)
	return &Type{Name: "number", Doc: doc, check: func(s string) *Fault {
		if n, err := strconv.ParseInt(s, 10, 64); err != nil || n < least || n > most {
			return &Fault{Problem: fmt.Sprintf("bad number %q", s), Hint: doc}
		}
		return nil
	}}
}

// Bound is the type of a number from 1 to 2147483647, or "none" for no bound.
var Bound = &Type{Name: "number|none", Doc: "a whole number from 1 to 2147483647, or none for no bound", check: func(s string) *Fault {
	if s == "none" {
		return nil
	}
	if f := Int.check(s); f != nil {
		return &Fault{Problem: f.Problem, Hint: f.Hint + ", or none for no bound"}
	}
	return nil
}}

// Period returns the type of a Duration that is no longer than most.
func Period(most time.Duration) *Type {
	return &Type{Name: Duration.Name, Doc: Duration.Doc + "; at most " + short(most), check: func(s string) *Fault {
		if f := checkDuration(s); f != nil {
			return f
		}
		if d, _ := time.ParseDuration(s); d > most {
			return &Fault{Problem: fmt.Sprintf("bad duration %q", s), Hint: "it must be above 0 and at most " + short(most)}
		}
		return nil
	}}
}

// short writes a duration without the zeros at its end, as a person would.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// SizeUpTo returns the type of a Size that is no larger than most bytes.
func SizeUpTo(most int64) *Type {
	return &Type{Name: "size", Doc: "bytes: 500, 64k, 10m, 1g; at most " + sizeText(most), check: func(s string) *Fault {
		n, ok := parseUnits(s, sizeUnits)
		switch {
		case !ok:
			return &Fault{Problem: fmt.Sprintf("bad size %q", s), Hint: "write it like 500, 64k, 10m or 1g; k is 1024 bytes"}
		case n > most:
			return &Fault{Problem: fmt.Sprintf("bad size %q", s), Hint: "it must be at most " + sizeText(most)}
		}
		return nil
	}}
}

// sizeBetween returns the type of a Size from least to most bytes.
func sizeBetween(least, most int64) *Type {
	t := SizeUpTo(most)
	return &Type{Name: t.Name, Doc: "bytes: 500, 64k, 10m, 1g; from " + sizeText(least) + " to " + sizeText(most), check: func(s string) *Fault {
		if n, ok := parseUnits(s, sizeUnits); ok && n < least {
			return &Fault{Problem: fmt.Sprintf("bad size %q", s), Hint: "it must be at least " + sizeText(least)}
		}
		return t.check(s)
	}}
}

func sizeText(n int64) string {
	for _, u := range sizeUnits {
		if f := int64(u.factor); n >= f && n%f == 0 {
			return strconv.FormatInt(n/f, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

func checkText(s string) *Fault {
	if strings.ContainsRune(s, 0) {
		return &Fault{Problem: "a NUL byte is not allowed here"}
	}
	return nil
}

func checkPath(s string) *Fault {
	if f := checkText(s); f != nil {
		return f
	}
	if strings.HasPrefix(s, "~") && !strings.HasPrefix(s, "~/") {
		return &Fault{Problem: fmt.Sprintf("bad path %q", s), Hint: "only ~/ is expanded; write ./" + s + " for a file of that name"}
	}
	return nil
}

func checkDuration(s string) *Fault {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		f := &Fault{Problem: fmt.Sprintf("bad duration %q", s), Hint: "write it like 30s, 1m30s or 250ms"}
		if _, err := strconv.ParseUint(s, 10, 64); err == nil {
			f.Hint = fmt.Sprintf("a unit is missing: %ss for seconds, %sms for milliseconds", s, s)
		} else if strings.Trim(s, "0123456789.hms") == "" {
			f.Hint = "write it like 30s, 1m30s or 250ms, up to 2562047h"
		}
		return f
	case d <= 0:
		return &Fault{Problem: fmt.Sprintf("bad duration %q", s), Hint: "it must be above 0"}
	}
	return nil
}

func checkMode(s string) *Fault {
	if m, err := strconv.ParseUint(s, 8, 32); err != nil || m > 0o777 || m == 0 {
		return &Fault{Problem: fmt.Sprintf("bad mode %q", s), Hint: "permission bits in octal, such as 0600"}
	}
	return nil
}

func checkIP(s string) *Fault {
	if _, err := netip.ParseAddr(s); err != nil {
		return &Fault{Problem: fmt.Sprintf("bad IP address %q", s), Hint: "an address such as 127.0.0.1 or ::1, without a name or port"}
	}
	return nil
}

func checkSecret(s string) *Fault {
	for _, scheme := range []string{"env:", "file:"} {
		if rest, ok := strings.CutPrefix(s, scheme); ok && rest != "" {
			return checkText(rest)
		}
	}
	return &Fault{
		Problem: "a secret must not be on the command line, where others can read it",
		Hint:    "name where to read it: env:NAME or file:PATH",
	}
}

const portHint = "a port is a number from 0 to 65535"

// checkPort checks the port at offset at of a text.
func checkPort(s string, at int, zero bool) *Fault {
	f := &Fault{From: at, To: at + len(s), Problem: fmt.Sprintf("bad port %q", s), Hint: portHint}
	n, err := strconv.ParseUint(s, 10, 16)
	switch {
	case s == "":
		f.Problem = "missing port"
		return f
	case err != nil || s[0] == '+':
		return f
	case s[0] == '0' && len(s) > 1:
		f.Hint = "write it without leading zeros"
		return f
	case n == 0 && !zero:
		f.Hint = "a port to connect to is a number from 1 to 65535"
		return f
	}
	return nil
}

// checkHost checks the host at the beginning of a text.
func checkHost(s string) *Fault {
	f := &Fault{From: 0, To: len(s), Problem: fmt.Sprintf("bad host %q", s)}
	inner := s
	if strings.HasPrefix(s, "[") {
		var ok bool
		if inner, ok = strings.CutSuffix(s[1:], "]"); !ok || !strings.Contains(inner, ":") {
			f.Hint = "only an IPv6 address may be in brackets"
			return f
		}
	}
	if strings.Contains(inner, ":") {
		if a, err := netip.ParseAddr(inner); err != nil || a.Is4() {
			f.Hint = "not an IPv6 address; the port stands after the last colon"
			return f
		}
		return nil
	}
	if looksIPv4(inner) {
		if _, err := netip.ParseAddr(inner); err != nil {
			f.Hint = "an IPv4 address is four numbers from 0 to 255"
			return f
		}
	}
	if len(inner) > 253 {
		f.Hint = "a name has at most 253 letters"
		return f
	}
	for i, r := range inner {
		if r <= ' ' || r == 0x7f || strings.ContainsRune(`/\@?#"<>%[]`, r) {
			return &Fault{From: i, To: i + len(string(r)), Problem: fmt.Sprintf("bad host %q", s), Hint: fmt.Sprintf("%q is not allowed in a name", r)}
		}
	}
	return nil
}

// looksIPv4 reports whether a host consists of digits and dots: it is then
// meant as an address, and resolving it as a name would be a guess.
func looksIPv4(s string) bool {
	return s != "" && strings.Trim(s, "0123456789.") == ""
}

// splitHostPort cuts at the last colon. ok is false without one.
func splitHostPort(s string) (host, port string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+1:], true
}

func checkHostPort(s string) *Fault {
	host, port, ok := splitHostPort(s)
	if !ok {
		f := &Fault{Problem: fmt.Sprintf("missing port after %q", s), Hint: "write host:port"}
		if strings.Trim(s, "0123456789") == "" {
			f.Problem, f.Hint = fmt.Sprintf("missing host before port %s", s), "localhost:"+s+" is this machine"
		}
		return f
	}
	if f := checkPort(port, len(host)+1, false); f != nil {
		return f
	}
	if host == "" {
		return &Fault{From: 0, To: 1, Problem: "missing host before the port", Hint: "localhost" + s + " is this machine"}
	}
	return checkHost(host)
}

func checkListenPort(s string) *Fault {
	host, port, ok := splitHostPort(s)
	if !ok {
		return checkPort(s, 0, true)
	}
	if f := checkPort(port, len(host)+1, true); f != nil {
		return f
	}
	if host == "" {
		return nil
	}
	return checkHost(host)
}

// hostPort writes an address as package net does: an IPv6 literal in brackets.
func hostPort(s string) string {
	host, port, ok := splitHostPort(s)
	if !ok {
		return s
	}
	return net.JoinHostPort(unbracket(host), port)
}

// unbracket takes the brackets off an IPv6 literal.
func unbracket(host string) string {
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

// The values of a parsed part. Parse has checked them, so reading one cannot
// fail; a missing one reads as its zero value.

// Option finds an option by name, or nil.
func (p *Part) Option(name string) *Option {
	for i := range p.Options {
		if p.Options[i].Key.Text == name {
			return &p.Options[i]
		}
	}
	return nil
}

// Has reports whether the part has an option.
func (p *Part) Has(name string) bool { return p.Option(name) != nil }

// Value returns the text of an option, or "".
func (p *Part) Value(name string) string {
	if o := p.Option(name); o != nil && o.Value != nil {
		return o.Value.Text
	}
	return ""
}

// Values returns the texts of an option that may be given more than once.
func (p *Part) Values(name string) []string {
	var all []string
	for _, o := range p.Options {
		if o.Key.Text == name && o.Value != nil {
			all = append(all, o.Value.Text)
		}
	}
	return all
}

// ArgText returns the text after the colon, or "".
func (p *Part) ArgText() string {
	if p.Arg == nil {
		return ""
	}
	return p.Arg.Text
}

// Duration returns the value of an option of type Duration, or 0.
func (p *Part) Duration(name string) time.Duration {
	d, _ := time.ParseDuration(p.Value(name))
	return d
}

// Int returns the value of an option of type Int or Number, or 0.
func (p *Part) Int(name string) int64 {
	n, _ := strconv.ParseInt(p.Value(name), 10, 64)
	return n
}

// Mode returns the value of an option of type Mode, or 0.
func (p *Part) Mode(name string) fs.FileMode {
	m, _ := strconv.ParseUint(p.Value(name), 8, 32)
	return fs.FileMode(m)
}

// IP returns the value of an option of type IP, or the zero Addr.
func (p *Part) IP(name string) netip.Addr {
	a, _ := netip.ParseAddr(p.Value(name))
	return a
}

// Path expands ~/ at the start of a path. Without a home directory, ~/ stays as
// it is.
func (env *Env) Path(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok && env.Home != "" {
		return strings.TrimSuffix(env.Home, "/") + "/" + rest
	}
	return path
}

// The factors of sizes and rates, in bytes: letters are powers of 1024, as for
// memory, and bits powers of 1000, as for lines.
var (
	sizeUnits = []unit{{"g", 1 << 30}, {"m", 1 << 20}, {"k", 1 << 10}, {"", 1}}
	rateUnits = append([]unit{{"gbit", 1e9 / 8}, {"mbit", 1e6 / 8}, {"kbit", 1e3 / 8}, {"bit", 1. / 8}}, sizeUnits...)
)

type unit struct {
	name   string
	factor float64
}

// parseUnits reads a number followed by a unit; ok is false for anything else,
// and for less than one byte or more than 1 EiB.
func parseUnits(s string, units []unit) (n int64, ok bool) {
	for _, u := range units {
		digits, has := strings.CutSuffix(s, u.name)
		if !has {
			continue
		}
		if strings.Trim(digits, "0123456789.") != "" {
			return 0, false
		}
		f, err := strconv.ParseFloat(digits, 64)
		if f *= u.factor; err != nil || f < 1 || f > 1<<60 {
			return 0, false
		}
		return int64(f), true
	}
	return 0, false
}

// ParseSize reads a number of bytes as the type Size has it: 500, 64k, 10m or 1g. ok is
// false for anything else.
func ParseSize(s string) (n int64, ok bool) { return parseUnits(s, sizeUnits) }

var (
	// Size is a number of bytes.
	Size = &Type{Name: "size", Doc: "bytes: 500, 64k, 10m, 1g", check: func(s string) *Fault {
		if _, ok := parseUnits(s, sizeUnits); !ok {
			return &Fault{Problem: fmt.Sprintf("bad size %q", s), Hint: "write it like 500, 64k, 10m or 1g; k is 1024 bytes"}
		}
		return nil
	}}
	// Rate is a number of bytes or bits a second.
	Rate = &Type{Name: "rate", Doc: "a second: 500k, 10m are bytes; 64kbit, 10mbit, 1gbit are bits", check: func(s string) *Fault {
		if _, ok := parseUnits(s, rateUnits); !ok {
			return &Fault{Problem: fmt.Sprintf("bad rate %q", s), Hint: "write it like 500k (1024 bytes a second each) or 10mbit (a million bits a second each)"}
		}
		return nil
	}}
	// Chance is a probability above 0.
	Chance = &Type{Name: "chance", Doc: "a number above 0 and up to 1: 0.01 is one in a hundred", check: func(s string) *Fault {
		if f, err := strconv.ParseFloat(s, 64); err != nil || !(f > 0 && f <= 1) {
			return &Fault{Problem: fmt.Sprintf("bad chance %q", s), Hint: "a number above 0 and up to 1, such as 0.01"}
		}
		return nil
	}}
)

// Size returns the value of an option of type Size, in bytes, or 0.
func (p *Part) Size(name string) int64 {
	n, _ := parseUnits(p.Value(name), sizeUnits)
	return n
}

// Rate returns the value of an option of type Rate, in bytes a second, or 0.
func (p *Part) Rate(name string) int64 {
	n, _ := parseUnits(p.Value(name), rateUnits)
	return n
}

// Chance returns the value of an option of type Chance, or 0.
func (p *Part) Chance(name string) float64 {
	f, _ := strconv.ParseFloat(p.Value(name), 64)
	return f
}
