package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strings"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/task"
	"github.com/weir-io/weir/task/stream"
)

const (
	headMost = 16 << 10 // bytes of a line of the head
	bodyMost = 1 << 20
)

var errTooLarge = errors.New("the page is too large")

// fetch gets a page by HTTP/1.0 (RFC 1945), whose body ends with the
// connection.
func fetch(t *task.Task, l *weir.Loop, u *url.URL) ([]byte, error) {
	host := u.Host
	if u.Port() == "" {
		host += ":80"
	}
	c, err := stream.Dial(t, l, "tcp", host)
	if err != nil {
		return nil, err
	}
	defer c.Abort() // anything not read by then is not wanted
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", u.RequestURI(), u.Host); err != nil {
		return nil, err
	}
	status, err := c.ReadLine(t, headMost)
	if err != nil {
		return nil, err
	}
	if f := strings.Fields(string(status)); len(f) < 2 || f[1] != "200" {
		return nil, fmt.Errorf("the server says %q", status)
	}
	for {
		line, err := c.ReadLine(t, headMost)
		if err != nil {
			return nil, err
		}
		if len(line) == 0 {
			break
		}
	}
	var body bytes.Buffer
	piece := make([]byte, 8<<10)
	for {
		n, err := c.Read(t, piece)
		body.Write(piece[:n])
		switch {
		case errors.Is(err, io.EOF):
			return body.Bytes(), nil
		case err != nil:
			return nil, err
		case body.Len() > bodyMost:
			return nil, errTooLarge
		}
	}
}

var href = regexp.MustCompile(`(?i)<a\s[^>]*href\s*=\s*["']?([^"'\s>]+)`)

// linksOf are the links of a page to its own host, without fragments.
func linksOf(base *url.URL, body []byte) []*url.URL {
	var links []*url.URL
	for _, m := range href.FindAllSubmatch(body, -1) {
		u, err := base.Parse(string(m[1]))
		if err != nil || u.Scheme != base.Scheme || u.Host != base.Host {
			continue
		}
		u.Fragment = ""
		links = append(links, u)
	}
	return links
}
