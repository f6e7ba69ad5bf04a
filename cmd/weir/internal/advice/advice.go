// Package advice explains errors: what went wrong, what was tried, what was
// seen and what was expected, and the next step.
//
// Why has the reasons, a table that is searched from its beginning. Connect,
// Listen, Prepare, Refused and Crowded explain one kind of failure each. None of
// them does I/O, except Listen, which asks the system who holds an address.
package advice

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/file"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/process"
)

// Failure is what went wrong, for people: the problem in one line, what was
// tried, and the next step. Its lines may contain text that a peer chose: the
// caller that prints them must escape them.
type Failure struct {
	Problem string
	Tried   []string
	Detail  []string // lines that show what was seen beside what was expected
	Next    string
	Also    string // a line after that, for people only
	Facts   []any  // what Problem says, as fields for JSON
	Kind    string // failures of one kind share a rate; if it is empty, those of one level do
}

// Lines are what people read, the problem first.
func (f *Failure) Lines() []string {
	lines := []string{f.Problem}
	if len(f.Tried) > 0 {
		lines = append(lines, "tried "+strings.Join(f.Tried, ", "))
	}
	lines = append(lines, f.Detail...)
	for _, l := range []string{f.Next, f.Also} {
		if l != "" {
			lines = append(lines, l)
		}
	}
	return lines
}

// Fields are what is logged as JSON beside the problem.
func (f *Failure) Fields() []any {
	fields := f.Facts
	if len(f.Tried) > 0 {
		fields = append(fields, "tried", f.Tried)
	}
	if len(f.Detail) > 0 {
		fields = append(fields, "detail", f.Detail)
	}
	if f.Next != "" {
		fields = append(fields, "next", f.Next)
	}
	return fields
}

// Connect explains why connecting to e failed.
func Connect(e *endpoint.Endpoint, err *weir.ConnectError) *Failure {
	return ConnectTo(e.Label(), e, err)
}

// ConnectTo is Connect with another name for e.
func ConnectTo(label string, e *endpoint.Endpoint, err *weir.ConnectError) *Failure {
	f := &Failure{Problem: "cannot connect to " + label, Kind: "cannot connect"}
	switch {
	case e.Role() == endpoint.Open:
		f.Problem = "cannot use " + e.Label()
	case e.Kind().Name == "file", e.Kind().Name == "pty" && e.Base.Has("link"):
		f.Problem = "cannot open " + e.Label()
	}
	var cause error = err
	for _, a := range err.Attempts {
		cause = a.Err
		f.Tried = append(f.Tried, serversTried(a.Err)...)
		if a.Addr != nil {
			f.Tried = append(f.Tried, a.Addr.String()+" "+cut(Why(a.Err)))
		}
	}
	if len(err.Attempts) == 0 || err.Err != nil {
		cause = err.Err
	}
	if err.Stage == weir.StageName && errors.Is(cause, os.ErrDeadlineExceeded) {
		cause = &net.DNSError{Err: "timed out", Name: label, IsTimeout: true, IsTemporary: true}
	}
	start, isStart := errors.AsType[*process.StartError](cause)
	if isStart {
		f.Problem = start.Error()
	} else {
		f.Problem += ": " + Why(cause)
	}
	f.Facts = append([]any{"endpoint", label}, Reason(cause)...)
	if err.Stage != "" {
		f.Facts = append(f.Facts, "stage", string(err.Stage))
	}
	if !e.Asks() {
		f.Next = nextForConnect(e, cause)
	}
	f.showTLS(cause, false)
	f.showProxy(e, cause)
	f.showUpgrade(e, cause)
	return f
}

// cut takes the explanation in brackets off a reason.
func cut(s string) string {
	s, _, _ = strings.Cut(s, " (")
	return s
}

// A rule says why something failed, "" if it does not apply.
type rule func(err error) string

// is is a rule for certain errors.
func is(text string, errs ...error) rule {
	return func(err error) string {
		if slices.ContainsFunc(errs, func(e error) bool { return errors.Is(err, e) }) {
			return text
		}
		return ""
	}
}

// as is a rule for a type of error.
func as[E error](text func(E) string) rule {
	return func(err error) string {
		if e, ok := errors.AsType[E](err); ok {
			return text(e)
		}
		return ""
	}
}

// rules are the reasons; the first that applies is used.
var rules = []rule{
	as((*endpoint.SelfError).Error),
	as((*process.StartError).Error),
	as((*endpoint.ChildrenError).Error),
	as((*file.NotFileError).What),
	as(whyMissing),
	as(whyGone),
	whyLimit,
	whyTLS,
	whyProxy,
	is("refused", syscall.ECONNREFUSED),
	whyName,
	is("timed out", os.ErrDeadlineExceeded, syscall.ETIMEDOUT),
	is("reset", syscall.ECONNRESET),
	is("broken pipe", syscall.EPIPE),
	is("unreachable", syscall.ENETUNREACH, syscall.EHOSTUNREACH),
	is("already in use", syscall.EADDRINUSE),
	whyNoPort,
	is("not an address of this machine", syscall.EADDRNOTAVAIL),
	is("no such file", fs.ErrNotExist),
	is("permission denied", fs.ErrPermission),
	is("no descriptors left (see ulimit -n)", syscall.EMFILE, syscall.ENFILE),
	is("stopped here", weir.ErrLoopClosed, weir.ErrStopped),
	is("aborted here", weir.ErrAborted),
	is("it can only be read", weir.ErrNotWritable),
	as(func(e *weir.PanicError) string { return "a bug in weir: " + e.Error() }),
	is("ended too early", io.ErrUnexpectedEOF),
	as(func(e *net.AddrError) string { return e.Err }),
	as((*endpoint.LayerError).Error),
	as(func(e *fs.PathError) string { return e.Err.Error() }),
	as(syscall.Errno.Error),
}

// Why says in a few words why something failed.
func Why(err error) string {
	if err == nil {
		return "closed"
	}
	for _, r := range rules {
		if text := r(err); text != "" {
			return text
		}
	}
	return strings.TrimPrefix(deepest(err).Error(), "weir: ")
}

// deepest is the cause below every wrapper that only says where.
func deepest(err error) error {
	for {
		var op *net.OpError
		if !errors.As(err, &op) || op.Err == nil {
			return err
		}
		err = op.Err
	}
}

func nextForConnect(e *endpoint.Endpoint, cause error) string {
	unix := e.Kind().Name == "unix"
	wait := ". To wait for it: add ,retry=30s"
	if e.Base.Has("retry") {
		wait = ", and nothing came within " + e.Base.Value("retry") + "."
	}
	var dns *net.DNSError
	var self *endpoint.SelfError
	var start *process.StartError
	var children *endpoint.ChildrenError
	var other *file.NotFileError
	if next := nextForModule(cause); next != "" {
		return next
	}
	switch {
	case errors.As(cause, &other):
		return nextForNotFile(e, other)
	case e.Kind().Name == "file" && errors.Is(cause, fs.ErrNotExist) && e.Base.Has("create"):
		dir := shellWord(filepath.Dir(e.Base.ArgText()))
		return "The directory " + dir + " does not exist. To make it: mkdir -p " + dir
	case e.Kind().Name == "file" && errors.Is(cause, fs.ErrNotExist) && !e.Base.Has("create") && e.Base.Has("append"):
		return "There is no such file. To make it: add ,create"
	case e.Kind().Name == "file":
		return nextForMissing(cause)
	case e.Kind().Name == "serial":
		return nextForSerial(e, cause)
	case e.Kind().Name == "pty" && errors.Is(cause, fs.ErrExist):
		return "Something is there already: remove it, or choose another path."
	case e.Kind().Name == "pty" && e.Base.Has("link") && errors.Is(cause, fs.ErrNotExist):
		return "A link is made only in a directory that exists."
	case errors.As(cause, &children):
		return "Others can start when one ends. For more at once: " + e.Kind().Name + ",children=N"
	case errors.As(cause, &start) && start.Op == "find":
		return "Is it installed? If it is not in PATH, write its path."
	case errors.As(cause, &start):
		return ""
	case errors.As(cause, &self):
		return "Each connection would make another one, without end. Did you mean another port, or another machine?"
	case errors.Is(cause, syscall.ECONNREFUSED) && unix && noSocket(e.Base.ArgText()):
		return "That is not a socket. To send its bytes write - and < " + e.Base.ArgText()
	case errors.Is(cause, syscall.ECONNREFUSED) && unix:
		return "Nothing is listening on that socket" + wait
	case errors.Is(cause, syscall.ECONNREFUSED):
		return "Nothing is listening on that port" + wait
	case errors.Is(cause, fs.ErrNotExist) && unix:
		return "There is no such socket" + wait
	case errors.Is(cause, fs.ErrPermission) && unix:
		return "This user may not connect to it: ls -l " + e.Base.ArgText()
	case errors.As(cause, &dns):
		host, _, _ := strings.Cut(e.Base.ArgText(), ":")
		if near := endpoint.Nearest(host, endpoint.Default().KindNames()); near != "" && e.Base.Short {
			return fmt.Sprintf("%q was taken for a host. If you mean the kind %q, write %s:…", host, near, near)
		}
		next := "weir dns " + host + " -v shows who was asked, and what they said."
		if dns.IsTemporary && !e.Base.Has("retry") {
			next += " To wait for them: add ,retry=30s"
		}
		return next
	case errors.Is(cause, layer.ErrTimeout): // the host is there
	case errors.Is(cause, os.ErrDeadlineExceeded), errors.Is(cause, syscall.ETIMEDOUT):
		return "There was no answer: the host is down, or something on the way drops the packets."
	case errors.Is(cause, syscall.ENETUNREACH), errors.Is(cause, syscall.EHOSTUNREACH):
		return "There is no route to it from here."
	case portsUsedUp(cause):
		return "Every local port is connected to it already (net.ipv4.ip_local_port_range on Linux)."
	case errors.Is(cause, syscall.EADDRNOTAVAIL) && e.Base.Has("bind"):
		return "bind= takes an address of this machine, and " + e.Base.Value("bind") + " is not one."
	}
	return ""
}

// portsUsedUp reports whether a connect found no local port. An address of
// another machine fails in bind.
func portsUsedUp(err error) bool {
	var call *os.SyscallError
	return errors.Is(err, syscall.EADDRNOTAVAIL) && errors.As(err, &call) && call.Syscall == "connect"
}

func whyNoPort(err error) string {
	if portsUsedUp(err) {
		return "no local port is free"
	}
	return ""
}

// noSocket reports whether there is something at path that is not a socket.
func noSocket(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode()&fs.ModeSocket == 0
}

// Listen explains a listener that could not be opened.
func Listen(e *endpoint.Endpoint, err error) *Failure {
	where := e.Label()
	var op *net.OpError
	if errors.As(err, &op) && op.Addr != nil && e.Kind().Name != "fd" {
		where = op.Addr.String()
	}
	f := &Failure{Problem: "cannot listen on " + where + ": "}
	tcp := e.Kind().Name == "tcp-listen"
	var file *endpoint.NotSocketError
	var missing *weir.MissingSocketError
	switch {
	case errors.As(err, &missing):
		f.Problem += Why(err)
		f.Next = nextForModule(err)
	case errors.As(err, &file):
		f.Problem += file.What + " is in the way"
		f.Next = "It is left alone. Remove it, or pick another path."
	case errors.Is(err, syscall.EADDRINUSE):
		f.Problem += "already in use"
		if who := holder(tcp, where); who != "" {
			f.Problem += " by " + who
		}
		f.Next = "Pick another path, or stop what listens there."
		if tcp {
			f.Next = "Pick another port, or 0 to let the system choose."
		}
	case errors.Is(err, fs.ErrPermission) && tcp:
		f.Problem += "permission denied"
		f.Next = "Ports below 1024 are for privileged programs: pick a higher one."
	case errors.Is(err, fs.ErrNotExist) && e.Kind().Name == "unix-listen":
		f.Problem += "no such directory"
		f.Next = "Make the directory first, or pick another path."
	case errors.Is(err, syscall.ENAMETOOLONG):
		f.Problem += Why(err)
		f.Next = "Pick a shorter path: the system allows about a hundred bytes for a socket's."
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		f.Problem += "not an address of this machine"
		if _, port, err := net.SplitHostPort(where); err == nil {
			f.Next = "For every interface write :" + port + ", for loopback only " + port + "."
		}
	default:
		f.Problem += Why(err)
	}
	return f
}

// holder names the process that listens on an address, or "".
func holder(tcp bool, where string) string {
	if !tcp {
		return holderOfUnix(where)
	}
	host, port, err := net.SplitHostPort(where)
	if err != nil {
		return ""
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return ""
	}
	return holderOfPort(host, uint16(n))
}
