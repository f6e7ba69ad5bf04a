package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/address"
)

// failure is what went wrong, for people: the problem in one line, what was
// tried, and the next step.
type failure struct {
	problem string
	tried   []string
	detail  []string // lines that show what was seen beside what was expected
	next    string
	also    string // a line behind that, for people only
	facts   []any  // what problem says, as fields for JSON
}

func (f *failure) lines() []string {
	lines := []string{f.problem}
	if len(f.tried) > 0 {
		lines = append(lines, "tried "+strings.Join(f.tried, ", "))
	}
	lines = append(lines, f.detail...)
	for _, l := range []string{f.next, f.also} {
		if l != "" {
			lines = append(lines, l)
		}
	}
	return lines
}

func (f *failure) fields() []any {
	fields := f.facts
	if len(f.tried) > 0 {
		fields = append(fields, "tried", f.tried)
	}
	if len(f.detail) > 0 {
		fields = append(fields, "detail", f.detail)
	}
	if f.next != "" {
		fields = append(fields, "next", f.next)
	}
	return fields
}

// connectFailure explains a connect that came to nothing.
func connectFailure(e *address.Endpoint, err *weir.ConnectError) *failure {
	return connectFailureTo(e.Label(), e, err)
}

// connectFailureTo is connectFailure for an endpoint that is called otherwise.
func connectFailureTo(label string, e *address.Endpoint, err *weir.ConnectError) *failure {
	f := &failure{problem: "cannot connect to " + label}
	if e.Role() == address.Open {
		f.problem = "cannot use " + e.Label()
	}
	var cause error = err
	for _, a := range err.Attempts {
		cause = a.Err
		if a.Addr != nil {
			f.tried = append(f.tried, a.Addr.String()+" "+cut(why(a.Err)))
		}
	}
	if len(err.Attempts) == 0 || err.Err != nil {
		cause = err.Err
	}
	f.problem += ": " + why(cause)
	f.facts = append([]any{"endpoint", label}, reasonFields(cause)...)
	if err.Stage != "" {
		f.facts = append(f.facts, "stage", string(err.Stage))
	}
	if !e.Asks() {
		f.next = nextForConnect(e, cause)
	}
	f.showTLS(cause, false)
	f.showProxy(e, cause)
	return f
}

// cut takes the explanation in brackets off a reason.
func cut(s string) string {
	s, _, _ = strings.Cut(s, " (")
	return s
}

// why says in a word or few why something failed.
func why(err error) string {
	var (
		dns    *net.DNSError
		addr   *net.AddrError
		path   *fs.PathError
		panics *weir.PanicError
		errno  syscall.Errno
		tls    *address.LayerError
	)
	if text := whyLimit(err); text != "" {
		return text
	}
	if text := whyTLS(err); text != "" {
		return text
	}
	if text := whyProxy(err); text != "" {
		return text
	}
	switch {
	case err == nil:
		return "closed"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.As(err, &dns):
		return "name not found"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return "timed out"
	case errors.Is(err, syscall.ECONNRESET):
		return "reset"
	case errors.Is(err, syscall.EPIPE):
		return "broken pipe"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "unreachable"
	case errors.Is(err, syscall.EADDRINUSE):
		return "already in use"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "not an address of this machine"
	case errors.Is(err, fs.ErrNotExist):
		return "no such file"
	case errors.Is(err, fs.ErrPermission):
		return "permission denied"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "no descriptors left (see ulimit -n)"
	case errors.Is(err, weir.ErrLoopClosed), errors.Is(err, weir.ErrStopped):
		return "stopped here"
	case errors.Is(err, weir.ErrAborted):
		return "aborted here"
	case errors.Is(err, weir.ErrNotWritable):
		return "it can only be read"
	case errors.As(err, &panics):
		return "a bug in weir: " + panics.Error()
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "ended too early"
	case errors.As(err, &addr):
		return addr.Err
	case errors.As(err, &tls):
		return tls.Error()
	case errors.As(err, &path):
		return path.Err.Error()
	case errors.As(err, &errno):
		return errno.Error()
	}
	return strings.TrimPrefix(deepest(err).Error(), "weir: ")
}

// deepest is the cause below everything that only says where.
func deepest(err error) error {
	for {
		var op *net.OpError
		if !errors.As(err, &op) || op.Err == nil {
			return err
		}
		err = op.Err
	}
}

func nextForConnect(e *address.Endpoint, cause error) string {
	unix := e.Kind().Name == "unix"
	wait := ". To wait for it: add ,retry=30s"
	if e.Base.Has("retry") {
		wait = ", and nothing came within " + e.Base.Value("retry") + "."
	}
	var dns *net.DNSError
	switch {
	case errors.Is(cause, syscall.ECONNREFUSED) && unix && noSocket(e.Base.ArgText()):
		return "That is no socket. To send its bytes write - and < " + e.Base.ArgText()
	case errors.Is(cause, syscall.ECONNREFUSED) && unix:
		return "Nobody is listening on that socket" + wait
	case errors.Is(cause, syscall.ECONNREFUSED):
		return "Nothing is listening on that port" + wait
	case errors.Is(cause, fs.ErrNotExist) && unix:
		return "There is no such socket" + wait
	case errors.Is(cause, fs.ErrPermission) && unix:
		return "This user may not connect to it: ls -l " + e.Base.ArgText()
	case errors.As(cause, &dns):
		host, _, _ := strings.Cut(e.Base.ArgText(), ":")
		if near := address.Nearest(host, address.Default().KindNames()); near != "" && e.Base.Short {
			return fmt.Sprintf("%q was taken for a host. If it is the kind %q that is meant, write %s:…", host, near, near)
		}
		return "weir dns " + host + " -v shows who was asked, and what they said."
	case errors.Is(cause, os.ErrDeadlineExceeded), errors.Is(cause, syscall.ETIMEDOUT):
		return "Nobody answered: the host is down, or something between drops the packets."
	case errors.Is(cause, syscall.ENETUNREACH), errors.Is(cause, syscall.EHOSTUNREACH):
		return "There is no route to it from here."
	case errors.Is(cause, syscall.EADDRNOTAVAIL) && e.Base.Has("bind"):
		return "bind= takes an address of this machine, and " + e.Base.Value("bind") + " is none."
	}
	return ""
}

// noSocket reports whether something is at path that is no socket.
func noSocket(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode()&fs.ModeSocket == 0
}

// listenFailure explains a listener that could not be opened.
func listenFailure(e *address.Endpoint, err error) *failure {
	where := e.Label()
	var op *net.OpError
	if errors.As(err, &op) && op.Addr != nil && e.Kind().Name != "fd" {
		where = op.Addr.String()
	}
	f := &failure{problem: "cannot listen on " + where + ": "}
	tcp := e.Kind().Name == "tcp-listen"
	var file *address.NotSocketError
	switch {
	case errors.As(err, &file):
		f.problem += file.What + " is in the way"
		f.next = "It is left alone. Remove it, or pick another path."
	case errors.Is(err, syscall.EADDRINUSE):
		f.problem += "already in use"
		if who := holder(tcp, where); who != "" {
			f.problem += " by " + who
		}
		f.next = "Pick another path, or stop what listens there."
		if tcp {
			f.next = "Pick another port, or 0 to let the system choose."
		}
	case errors.Is(err, fs.ErrPermission) && tcp:
		f.problem += "permission denied"
		f.next = "Ports below 1024 are for privileged programs: pick a higher one."
	case errors.Is(err, fs.ErrNotExist) && e.Kind().Name == "unix-listen":
		f.problem += "no such directory"
		f.next = "Make the directory first, or pick another path."
	case errors.Is(err, syscall.ENAMETOOLONG):
		f.problem += why(err)
		f.next = "Pick a shorter path: the system keeps about a hundred bytes of a socket's."
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		f.problem += "not an address of this machine"
		if _, port, err := net.SplitHostPort(where); err == nil {
			f.next = "For every interface write :" + port + ", for loopback only " + port + "."
		}
	default:
		f.problem += why(err)
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
