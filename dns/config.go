package dns

import (
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// Config is the content of a resolv.conf (resolv.conf(5)). The zero value of a
// field means its default.
type Config struct {
	// Servers are asked in turn; an empty list means the server on this host.
	// At most serversMax of those in a file count.
	Servers []netip.AddrPort
	// Search lists domains that are appended, one after another, to names with
	// fewer than Ndots dots; the default for Ndots is 1.
	Search []string
	Ndots  int
	// Timeout is how long a server has to answer, 5 s by default; Attempts is
	// how many times all of them are asked, 2 by default.
	Timeout  time.Duration
	Attempts int
	Rotate   bool // begin with another server each time
	TCP      bool // ask over TCP only ("use-vc")
	NoAAAA   bool // do not ask for AAAA where IPv4 will do ("no-aaaa")
}

const (
	serversMax = 3
	searchMax  = 32 // names of the search list
	dnsPort    = 53
)

// ParseConfig reads a resolv.conf. It ignores lines that it does not
// understand, as other resolvers do.
func ParseConfig(r io.Reader) (Config, error) {
	text, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return Config{}, err
	}
	c := Config{Ndots: -1}
	for line := range strings.Lines(string(text)) {
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(f[1]); err == nil && len(c.Servers) < serversMax {
				c.Servers = append(c.Servers, netip.AddrPortFrom(a.Unmap(), dnsPort))
			}
		case "domain":
			c.Search = searchList(f[1:2])
		case "search":
			c.Search = searchList(f[1:])
		case "options":
			for _, o := range f[1:] {
				c.option(o)
			}
		}
	}
	return c.filled(), nil
}

func searchList(names []string) []string {
	var all []string
	for _, s := range names {
		if s = absolute(s); s != "." && validName(s) && s[0] != '*' && len(all) < searchMax {
			all = append(all, s)
		}
	}
	return all
}

func (c *Config) option(o string) {
	name, value, _ := strings.Cut(o, ":")
	n, err := strconv.Atoi(value)
	switch {
	case name == "rotate":
		c.Rotate = true
	case name == "use-vc" || name == "usevc" || name == "tcp":
		c.TCP = true
	case name == "no-aaaa":
		c.NoAAAA = true
	case err != nil || n < 0:
	case name == "ndots":
		c.Ndots = min(n, 15)
	case name == "timeout":
		c.Timeout = time.Duration(min(max(n, 1), 30)) * time.Second
	case name == "attempts":
		c.Attempts = min(max(n, 1), 5)
	}
}

// filled puts in the defaults where nothing was set; for Ndots a value below 0
// means not set.
func (c Config) filled() Config {
	if len(c.Servers) == 0 {
		c.Servers = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), dnsPort)}
	}
	if c.Ndots < 0 {
		c.Ndots = 1
	}
	if c.Timeout <= 0 {
		c.Timeout = 5 * time.Second
	}
	if c.Attempts <= 0 {
		c.Attempts = 2
	}
	return c
}

// absolute adds the final dot.
func absolute(s string) string {
	if strings.HasSuffix(s, ".") {
		return s
	}
	return s + "."
}

// candidates are the names to ask for, in order (resolver(3)).
func (c *Config) candidates(name string) []string {
	if strings.HasSuffix(name, ".") {
		return []string{name}
	}
	var all []string
	asIs := strings.Count(name, ".") >= c.Ndots
	if asIs {
		all = append(all, name+".")
	}
	for _, s := range c.Search {
		if full := name + "." + s; len(full) <= nameMax {
			all = append(all, full)
		}
	}
	if !asIs {
		all = append(all, name+".")
	}
	return all
}

// watched is a file that is read again after it has changed.
type watched struct {
	path    string
	checked time.Time
	stat    fileID
	read    bool
}

type fileID struct {
	size int64
	time time.Time
	gone bool
}

// checkEvery is how often a file is checked, at most.
const checkEvery = 5 * time.Second

// changed reports whether the file has to be read, and if so opens it; the file
// is nil if there is none.
func (w *watched) changed(now time.Time) (*os.File, bool) {
	if w.path == "" || w.read && now.Sub(w.checked) < checkEvery && !now.Before(w.checked) {
		return nil, false
	}
	w.checked = now
	id := fileID{gone: true}
	if st, err := os.Stat(w.path); err == nil {
		id = fileID{size: st.Size(), time: st.ModTime()}
	}
	if w.read && id == w.stat {
		return nil, false
	}
	w.read, w.stat = true, id
	f, err := os.Open(w.path)
	if err != nil {
		return nil, true
	}
	return f, true
}
