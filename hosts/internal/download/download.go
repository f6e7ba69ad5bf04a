// Package download is what the examples in hosts share: an HTTP download in callbacks,
// a server that has something to download, and a record of how punctually a host's
// timer ticks meanwhile.
package download

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"

	"github.com/weir-io/weir"
)

// headMost is how long the head of a reply may be.
const headMost = 64 << 10

// ErrStopped is what a download that Stop ended reports.
var ErrStopped = errors.New("download: stopped")

// A Download fetches one file. All of its methods are for the loop's goroutine.
type Download struct {
	request  string
	t        weir.Transport
	conn     *weir.Connector
	progress func(d *Download)
	done     func(d *Download, err error)
	headed   bool
	ended    bool

	// Got is how many bytes of the body have arrived, of Total (-1 if the server
	// does not say), and Sum their CRC-32.
	Got, Total int64
	Sum        uint32
}

// Start begins to fetch an http URL. Neither function is called inside Start: progress
// whenever more has arrived, and done once, with nil if the body came whole.
func Start(l *weir.Loop, address string, progress func(*Download), done func(*Download, error)) (*Download, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("download: %w", err)
	}
	if u.Scheme != "http" || u.Hostname() == "" {
		return nil, fmt.Errorf("download: %q is not an http URL with a host", address)
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	d := &Download{
		request:  "GET " + u.RequestURI() + " HTTP/1.0\r\nHost: " + u.Host + "\r\nConnection: close\r\n\r\n",
		progress: progress, done: done, Total: -1,
	}
	d.conn = l.Connect("tcp", net.JoinHostPort(u.Hostname(), port), d)
	return d, nil
}

// Stop ends the download; done gets ErrStopped, not from inside the call. Stopping one
// that has ended has no effect.
func (d *Download) Stop() {
	if d.t != nil {
		d.t.Abort()
	} else {
		d.conn.Stop()
	}
}

// ConnectionMade sends the request.
func (d *Download) ConnectionMade(t weir.Transport) {
	d.t = t
	_, _ = t.Write([]byte(d.request))
}

// ConnectFailed reports why there is no connection.
func (d *Download) ConnectFailed(err *weir.ConnectError) {
	if errors.Is(err, weir.ErrStopped) {
		d.end(ErrStopped)
		return
	}
	d.end(err)
}

// DataReceived takes the head when it is whole, and then the body.
func (d *Download) DataReceived(p []byte) (int, error) {
	n := len(p)
	if !d.headed {
		end := bytes.Index(p, []byte("\r\n\r\n"))
		if end < 0 {
			if len(p) > headMost {
				return 0, fmt.Errorf("download: the reply's head is longer than %d bytes", headMost)
			}
			return 0, nil
		}
		if err := d.head(p[:end+4]); err != nil {
			return 0, err
		}
		d.headed = true
		p = p[end+4:]
	}
	if d.Total >= 0 && d.Got+int64(len(p)) > d.Total {
		return 0, fmt.Errorf("download: the body is longer than the %d bytes that its head announced", d.Total)
	}
	d.Got += int64(len(p))
	d.Sum = crc32.Update(d.Sum, crc32.IEEETable, p)
	d.progress(d)
	return n, nil
}

func (d *Download) head(p []byte) error {
	r := textproto.NewReader(bufio.NewReader(bytes.NewReader(p)))
	line, err := r.ReadLine()
	if err != nil {
		return fmt.Errorf("download: the reply's first line: %w", err)
	}
	version, rest, _ := strings.Cut(line, " ")
	if code, _, _ := strings.Cut(rest, " "); !strings.HasPrefix(version, "HTTP/1.") || code != "200" {
		return fmt.Errorf("download: the server replied %.80q, not 200", line)
	}
	h, err := r.ReadMIMEHeader()
	if err != nil {
		return fmt.Errorf("download: the reply's head: %w", err)
	}
	if s := h.Get("Content-Length"); s != "" {
		if d.Total, err = strconv.ParseInt(s, 10, 64); err != nil || d.Total < 0 {
			return fmt.Errorf("download: the reply's Content-Length is %.40q", s)
		}
	}
	return nil
}

// ConnectionLost ends the download.
func (d *Download) ConnectionLost(err error) {
	switch {
	case errors.Is(err, weir.ErrAborted):
		err = ErrStopped
	case err == nil && (!d.headed || d.Got < d.Total):
		err = fmt.Errorf("download: it ended after %d bytes of %d: %w", d.Got, d.Total, io.ErrUnexpectedEOF)
	}
	d.end(err)
}

func (d *Download) end(err error) {
	if !d.ended {
		d.ended = true
		d.done(d, err)
	}
}
