package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
)

// Error is a proxy's refusal: the answer it gave. If the answer says as much,
// it matches one of these errors: syscall.ECONNREFUSED, EHOSTUNREACH,
// ENETUNREACH, ErrNotAllowed, ErrAuth, ErrCommand.
type Error struct {
	Protocol string // "socks4", "socks5", "connect"
	Code     int    // the reply's code, or the HTTP status
	Text     string // what the code means, or the reason that the proxy gave
	// Destination is the "host:port" that the proxy was asked for: in a chain
	// of proxies it shows which of them refused.
	Destination string
	// User is the name of WithCredentials that the proxy was given; "" for none. The
	// password is nowhere in an Error: where the proxy's own words repeat it, or what
	// it was sent as, and it has at least four bytes, they are shown as "***".
	User string
	// Location is where the answer of an HTTP proxy leads to, and Body the
	// beginning of its text. Both are chosen by the proxy: quote them before
	// showing them.
	Location, Body string
	cause          error
}

func (e *Error) Error() string {
	text := "the proxy refused"
	if e.User != "" {
		text += fmt.Sprintf(" user %q", e.User)
	}
	text += fmt.Sprintf(": %q (%d)", e.Text, e.Code)
	if e.Location != "" {
		text += fmt.Sprintf(", which leads to %q", e.Location)
	}
	if e.Body != "" {
		text += fmt.Sprintf(", and says %q", e.Body)
	}
	return text
}

// Unwrap returns the error that the answer stands for, nil if there is none.
func (e *Error) Unwrap() error { return e.cause }

// ProtocolError reports a peer that does not speak the protocol.
type ProtocolError struct {
	Problem string
}

func (e *ProtocolError) Error() string { return e.Problem }

func malformed(format string, args ...any) error {
	return &ProtocolError{Problem: fmt.Sprintf(format, args...)}
}

var (
	// ErrNotAllowed is the cause when rules forbid a destination or a peer. It
	// also matches fs.ErrPermission.
	ErrNotAllowed error = &causeError{"not allowed by the rules", fs.ErrPermission}
	// ErrAuth is the cause when a proxy's credentials are missing or wrong. It
	// also matches fs.ErrPermission.
	ErrAuth error = &causeError{"the proxy's user name or password is missing or wrong", fs.ErrPermission}
	// ErrCommand is the cause when a proxy does not support what was asked for.
	// It also matches errors.ErrUnsupported.
	ErrCommand error = &causeError{"command not supported", errors.ErrUnsupported}
)

// causeError is a sentinel that also matches another error.
type causeError struct {
	text string
	is   error
}

func (e *causeError) Error() string { return e.text }
func (e *causeError) Unwrap() error { return e.is }

// cause classifies the reasons why a destination was not reached.
type cause uint8

const (
	causeOther cause = iota
	causeNotAllowed
	causeCommand
	causeAddress // a kind of address that the proxy does not support
	causeNetwork
	causeHost
	causeRefused
	causeTimeout
	causeNames // no name server could answer
)

func causeOf(err error) cause {
	var (
		dns  *net.DNSError
		addr *net.AddrError
		late interface{ Timeout() bool }
	)
	switch {
	case errors.Is(err, ErrNotAllowed):
		return causeNotAllowed
	case errors.Is(err, ErrCommand):
		return causeCommand
	case errors.As(err, &addr):
		return causeAddress
	case errors.Is(err, syscall.ECONNREFUSED):
		return causeRefused
	case errors.As(err, &dns) && dns.IsTemporary:
		return causeNames
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, syscall.ETIMEDOUT), errors.As(err, &late) && late.Timeout():
		return causeTimeout
	case errors.Is(err, syscall.EHOSTUNREACH), errors.As(err, &dns):
		return causeHost
	case errors.Is(err, syscall.ENETUNREACH):
		return causeNetwork
	}
	return causeOther
}

// checkName checks whether a name that a peer gave can be that of a host: names
// go into addresses, requests and logs.
func checkName(host string) error {
	if host == "" {
		return malformed("the name of a host is empty")
	}
	for i := range len(host) {
		if c := host[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`:/\@?#"<>%[]`, c) >= 0 {
			return malformed("the name of a host contains %q", c)
		}
	}
	return nil
}
