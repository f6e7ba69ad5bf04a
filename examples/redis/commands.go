package main

import (
	"bytes"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// command is one line of the table that serves clients and COMMAND alike.
type command struct {
	name    string
	arity   int // words, its name included; below 0: at least that many
	run     func(c *conn, args [][]byte)
	flags   []string
	keys    [3]int // first, last, step
	group   string
	summary string
}

// commands returns the table; COMMAND, which is in it, lists it.
func commands() []command {
	one, all, none := [3]int{1, 1, 1}, [3]int{1, -1, 1}, [3]int{}
	read, fast := []string{"readonly", "fast"}, []string{"fast"}
	write, writeFast, oom := []string{"write"}, []string{"write", "fast"}, []string{"write", "denyoom", "fast"}
	return []command{
		{"ping", -1, ping, fast, none, "connection", "Returns PONG or the message."},
		{"echo", 2, func(c *conn, a [][]byte) { c.bulk(a[1]) }, fast, none, "connection", "Returns the message."},
		{"quit", -1, quit, fast, none, "connection", "Closes the connection."},
		{"select", 2, selectDB, fast, none, "connection", "Changes the database; there is one, 0."},
		{"hello", -1, hello, fast, none, "connection", "Agrees on the protocol's version."},
		{"set", -3, set, oom[:2], one, "string", "Sets a key's value, and perhaps its expiry."},
		{"get", 2, get, read, one, "string", "Returns a key's value."},
		{"incr", 2, func(c *conn, a [][]byte) { c.add(a[1], 1) }, oom, one, "string", "Adds one to a key's integer."},
		{"decr", 2, func(c *conn, a [][]byte) { c.add(a[1], -1) }, oom, one, "string", "Takes one from a key's integer."},
		{"incrby", 3, incrby, oom, one, "string", "Adds to a key's integer."},
		{"del", -2, del, write, all, "generic", "Deletes keys."},
		{"unlink", -2, del, writeFast, all, "generic", "Deletes keys."},
		{"exists", -2, exists, read, all, "generic", "Counts which of the keys exist."},
		{"expire", -3, func(c *conn, a [][]byte) { c.expire(a, time.Second) }, writeFast, one, "generic", "Sets a key's expiry in seconds."},
		{"pexpire", -3, func(c *conn, a [][]byte) { c.expire(a, time.Millisecond) }, writeFast, one, "generic", "Sets a key's expiry in milliseconds."},
		{"ttl", 2, func(c *conn, a [][]byte) { c.ttl(a[1], time.Second) }, read, one, "generic", "Returns the seconds until a key expires."},
		{"pttl", 2, func(c *conn, a [][]byte) { c.ttl(a[1], time.Millisecond) }, read, one, "generic", "Returns the milliseconds until a key expires."},
		{"persist", 2, persist, writeFast, one, "generic", "Takes a key's expiry away."},
		{"dbsize", 1, func(c *conn, _ [][]byte) { c.int(int64(len(c.store.keys))) }, read, none, "server", "Counts the keys."},
		{"flushall", -1, flushall, write, none, "server", "Deletes every key."},
		{"config", -2, config, []string{"admin", "noscript", "loading", "stale"}, none, "server", "CONFIG GET returns parameters."},
		{"command", -1, listCommands, []string{"loading", "stale"}, none, "server", "Describes the commands."},
	}
}

// byName is the index in which the store looks up commands.
func byName() map[string]*command {
	m := make(map[string]*command)
	for _, c := range commands() {
		m[c.name] = &c
	}
	return m
}

// lookup finds a command, in upper or lower case; nil if there is none.
func (s *store) lookup(name []byte) *command {
	var lower [32]byte
	if len(name) > len(lower) {
		return nil
	}
	for i, ch := range name {
		if 'A' <= ch && ch <= 'Z' {
			ch += 'a' - 'A'
		}
		lower[i] = ch
	}
	return s.commands[string(lower[:len(name)])]
}

func is(arg []byte, word string) bool { return bytes.EqualFold(arg, []byte(word)) }

const (
	errSyntax = "ERR syntax error"
	errNotInt = "ERR value is not an integer or out of range"
)

func ping(c *conn, args [][]byte) {
	switch len(args) {
	case 1:
		c.status("PONG")
	case 2:
		c.bulk(args[1])
	default:
		c.error("ERR wrong number of arguments for 'ping' command")
	}
}

func quit(c *conn, _ [][]byte) {
	c.status("OK")
	c.flush()
	_ = c.t.Close()
}

func selectDB(c *conn, args [][]byte) {
	switch n, ok := parseInt(args[1]); {
	case !ok:
		c.error(errNotInt)
	case n != 0:
		c.error("ERR DB index is out of range")
	default:
		c.status("OK")
	}
}

func hello(c *conn, args [][]byte) {
	if len(args) > 1 {
		switch v, ok := parseInt(args[1]); {
		case !ok:
			c.error("ERR Protocol version is not an integer or out of range")
			return
		case v != 2:
			c.error("NOPROTO unsupported protocol version")
			return
		case len(args) > 2:
			c.error(errSyntax)
			return
		}
	}
	c.array(8)
	c.text("server")
	c.text("weir example")
	c.text("proto")
	c.int(2)
	c.text("mode")
	c.text("standalone")
	c.text("role")
	c.text("master")
}

func get(c *conn, args [][]byte) {
	if e := c.store.get(args[1]); e != nil {
		c.bulk(e.value)
	} else {
		c.null()
	}
}

// set is SET key value [NX|XX] [GET] [EX s|PX ms|EXAT s|PXAT ms|KEEPTTL].
func set(c *conn, args [][]byte) {
	var nx, xx, old, keepTTL, timed bool
	var due time.Time
	for rest := args[3:]; len(rest) > 0; rest = rest[1:] {
		opt := rest[0]
		expiry := is(opt, "EX") || is(opt, "PX") || is(opt, "EXAT") || is(opt, "PXAT")
		switch {
		case is(opt, "NX") && !xx:
			nx = true
		case is(opt, "XX") && !nx:
			xx = true
		case is(opt, "GET"):
			old = true
		case is(opt, "KEEPTTL") && !timed:
			keepTTL = true
		case expiry && !timed && !keepTTL && len(rest) > 1:
			n, ok := parseInt(rest[1])
			if !ok {
				c.error(errNotInt)
				return
			}
			unit := time.Second
			if opt[0]|0x20 == 'p' {
				unit = time.Millisecond
			}
			due, ok = c.due(n, unit, len(opt) == 4)
			if !ok || n <= 0 {
				c.error("ERR invalid expire time in 'set' command")
				return
			}
			timed = true
			rest = rest[1:]
		default:
			c.error(errSyntax)
			return
		}
	}
	e := c.store.get(args[1])
	reply := func() { c.status("OK") }
	if old {
		if e != nil {
			c.bulk(e.value)
		} else {
			c.null()
		}
		reply = func() {}
	}
	if nx && e != nil || xx && e == nil {
		if !old {
			c.null()
		}
		return
	}
	e = c.store.set(args[1], args[2])
	switch {
	case timed && !due.After(c.t.Loop().Now()):
		c.store.delete(args[1])
	case timed:
		c.store.expire(c.t.Loop(), args[1], e, due)
	case !keepTTL:
		e.persist()
	}
	reply()
}

// due turns a number in a command into a time of the loop's clock; false if it
// is too far away for one (292 years).
func (c *conn) due(n int64, unit time.Duration, absolute bool) (time.Time, bool) {
	if n > math.MaxInt64/int64(unit) || n < math.MinInt64/int64(unit) {
		return time.Time{}, false
	}
	now := c.t.Loop().Now()
	d := time.Duration(n) * unit
	if absolute {
		d -= time.Duration(now.UnixNano())
	}
	return now.Add(d), true
}

func (c *conn) add(key []byte, by int64) {
	var n int64
	e := c.store.get(key)
	if e != nil {
		var ok bool
		if n, ok = parseInt(e.value); !ok {
			c.error(errNotInt)
			return
		}
	}
	if by > 0 && n > math.MaxInt64-by || by < 0 && n < math.MinInt64-by {
		c.error("ERR increment or decrement would overflow")
		return
	}
	n += by
	if e == nil {
		e = c.store.set(key, nil)
	}
	e.value = strconv.AppendInt(e.value[:0], n, 10)
	c.int(n)
}

func incrby(c *conn, args [][]byte) {
	by, ok := parseInt(args[2])
	if !ok {
		c.error(errNotInt)
		return
	}
	c.add(args[1], by)
}

func del(c *conn, args [][]byte) {
	var n int64
	for _, key := range args[1:] {
		if c.store.delete(key) {
			n++
		}
	}
	c.int(n)
}

func exists(c *conn, args [][]byte) {
	var n int64
	for _, key := range args[1:] {
		if c.store.get(key) != nil {
			n++
		}
	}
	c.int(n)
}

// expire is EXPIRE key n [NX|XX|GT|LT], and PEXPIRE.
func (c *conn) expire(args [][]byte, unit time.Duration) {
	n, ok := parseInt(args[2])
	if !ok {
		c.error(errNotInt)
		return
	}
	var nx, xx, gt, lt bool
	for _, opt := range args[3:] {
		switch {
		case is(opt, "NX"):
			nx = true
		case is(opt, "XX"):
			xx = true
		case is(opt, "GT"):
			gt = true
		case is(opt, "LT"):
			lt = true
		default:
			c.error("ERR Unsupported option " + clean(opt))
			return
		}
	}
	if nx && (xx || gt || lt) || gt && lt {
		c.error("ERR NX and XX, GT or LT options at the same time are not compatible")
		return
	}
	due, ok := c.due(n, unit, false)
	if !ok {
		c.error("ERR invalid expire time in '" + strings.ToLower(string(args[0])) + "' command")
		return
	}
	e := c.store.get(args[1])
	switch {
	case e == nil,
		nx && e.expires(),
		xx && !e.expires(),
		gt && (!e.expires() || !due.After(e.due)), // no expiry counts as the latest
		lt && e.expires() && !due.Before(e.due):
		c.int(0)
	case n <= 0:
		c.store.delete(args[1])
		c.int(1)
	default:
		c.store.expire(c.t.Loop(), args[1], e, due)
		c.int(1)
	}
}

func (c *conn) ttl(key []byte, unit time.Duration) {
	switch e := c.store.get(key); {
	case e == nil:
		c.int(-2)
	case !e.expires():
		c.int(-1)
	default:
		left := max(0, e.due.Sub(c.t.Loop().Now()))
		c.int(int64((left + unit/2) / unit))
	}
}

func persist(c *conn, args [][]byte) {
	if e := c.store.get(args[1]); e != nil && e.persist() {
		c.int(1)
	} else {
		c.int(0)
	}
}

func flushall(c *conn, args [][]byte) {
	if len(args) > 2 || len(args) == 2 && !is(args[1], "SYNC") && !is(args[1], "ASYNC") {
		c.error(errSyntax)
		return
	}
	c.store.clear()
	c.status("OK")
}

// parameters are the settings that cannot be changed.
func (c *conn) parameters() map[string]string {
	return map[string]string{
		"save":               "",
		"appendonly":         "no",
		"databases":          "1",
		"maxmemory":          "0",
		"maxmemory-policy":   "noeviction",
		"timeout":            "0",
		"proto-max-bulk-len": strconv.Itoa(maxBulk),
	}
}

// config is CONFIG GET pattern...
func config(c *conn, args [][]byte) {
	if !is(args[1], "GET") {
		c.error("ERR unknown subcommand '" + clean(args[1]) + "'. Try CONFIG GET.")
		return
	}
	if len(args) < 3 {
		c.error("ERR wrong number of arguments for 'config|get' command")
		return
	}
	all := c.parameters()
	var found []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if slices.ContainsFunc(args[2:], func(pattern []byte) bool {
			ok, err := path.Match(strings.ToLower(string(pattern)), name)
			return ok && err == nil
		}) {
			found = append(found, name)
		}
	}
	c.array(2 * len(found))
	for _, name := range found {
		c.text(name)
		c.text(all[name])
	}
}

// listCommands is COMMAND, COMMAND COUNT, COMMAND INFO and COMMAND DOCS.
func listCommands(c *conn, args [][]byte) {
	all := commands()
	if len(args) == 1 {
		c.array(len(all))
		for i := range all {
			c.describe(&all[i])
		}
		return
	}
	named := all
	if len(args) > 2 {
		named = nil
		for _, name := range args[2:] {
			if cmd := c.store.lookup(name); cmd != nil {
				named = append(named, *cmd)
			} else if is(args[1], "INFO") {
				named = append(named, command{})
			}
		}
	}
	switch {
	case is(args[1], "COUNT") && len(args) == 2:
		c.int(int64(len(all)))
	case is(args[1], "INFO"):
		c.array(len(named))
		for i := range named {
			c.describe(&named[i])
		}
	case is(args[1], "DOCS"):
		c.array(2 * len(named))
		for _, cmd := range named {
			c.text(cmd.name)
			c.array(4)
			c.text("summary")
			c.text(cmd.summary)
			c.text("group")
			c.text(cmd.group)
		}
	default:
		c.error("ERR unknown subcommand or wrong number of arguments for '" + clean(args[1]) + "'. Try COMMAND INFO.")
	}
}

// describe is one command's entry in COMMAND's reply, a null if there is no
// such command.
func (c *conn) describe(cmd *command) {
	if cmd.name == "" {
		c.out = append(c.out, "*-1\r\n"...)
		return
	}
	c.array(10)
	c.text(cmd.name)
	c.int(int64(cmd.arity))
	c.array(len(cmd.flags))
	for _, f := range cmd.flags {
		c.status(f)
	}
	for _, k := range cmd.keys {
		c.int(int64(k))
	}
	for range 4 { // categories, hints, key specifications, subcommands
		c.array(0)
	}
}
