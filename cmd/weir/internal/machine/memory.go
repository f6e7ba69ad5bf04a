// Package machine knows how much memory this process may use.
package machine

import (
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
)

// Memory is how much memory a process may use, in bytes, and what says so.
type Memory struct {
	Bytes int64  // 0: it is not known
	Of    string // "this machine" or "its cgroup"
}

// MemoryIn reads it from a file system that has Linux's /proc and /sys: the least of what the machine
// has and of what the process's control groups, of version 1 or 2, and those around them allow.
func MemoryIn(root fs.FS) Memory {
	m := Memory{Bytes: total(root)}
	if m.Bytes > 0 {
		m.Of = "this machine"
	}
	for _, limit := range cgroupLimits(root) {
		if m.Bytes == 0 || limit < m.Bytes {
			m = Memory{Bytes: limit, Of: "its cgroup"}
		}
	}
	return m
}

// total is MemTotal of /proc/meminfo; 0 if that is not known.
func total(root fs.FS) int64 {
	for line := range lines(root, "proc/meminfo") {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err == nil && n > 0 && n < math.MaxInt64>>10 {
				return n << 10
			}
		}
	}
	return 0
}

// cgroupLimits are the limits of the process's groups for memory and of those around them.
func cgroupLimits(root fs.FS) (all []int64) {
	for line := range lines(root, "proc/self/cgroup") {
		// "0::/path" is version 2; "4:memory:/path" a hierarchy of version 1.
		id, rest, _ := strings.Cut(line, ":")
		controllers, group, ok := strings.Cut(rest, ":")
		if !ok {
			continue
		}
		switch {
		case id == "0" && controllers == "":
			for _, m := range mounts(root, "cgroup2", "") {
				all = append(all, limitsUp(root, m, group, "memory.max", "memory.high")...)
			}
		case has(controllers, "memory"):
			for _, m := range mounts(root, "cgroup", "memory") {
				all = append(all, limitsUp(root, m, group, "memory.limit_in_bytes")...)
			}
		}
	}
	return all
}

// mount is where a hierarchy of groups is seen.
type mount struct {
	at    string // its directory, without the first slash
	group string // the group that is seen there
}

// mounts finds a hierarchy in /proc/self/mountinfo, see proc_pid_mountinfo(5).
func mounts(root fs.FS, kind, controller string) (all []mount) {
	for line := range lines(root, "proc/self/mountinfo") {
		left, right, ok := strings.Cut(line, " - ")
		fields, rest := strings.Fields(left), strings.Fields(right)
		if !ok || len(fields) < 5 || len(rest) < 3 || rest[0] != kind || controller != "" && !has(rest[2], controller) {
			continue
		}
		all = append(all, mount{at: strings.TrimPrefix(unescape(fields[4]), "/"), group: unescape(fields[3])})
	}
	return all
}

// limitsUp reads the limits of a group and of those around it that are seen at m. In a
// container, the process may be told of a path that does not exist there: what is
// seen is then its own group.
func limitsUp(root fs.FS, m mount, group string, files ...string) (all []int64) {
	within := path.Clean("/" + group)
	if m.group != "/" {
		if rest, ok := strings.CutPrefix(within, m.group); ok && (rest == "" || rest[0] == '/') {
			within = path.Clean("/" + rest)
		}
	}
	for {
		for _, f := range files {
			if n, ok := limit(root, path.Join(m.at, within, f)); ok {
				all = append(all, n)
			}
		}
		if within == "/" || within == "." {
			return all
		}
		within = path.Dir(within)
	}
}

// limit reads a file with a limit; false for none. Version 1 writes a number near 2^63 for
// none.
func limit(root fs.FS, name string) (int64, bool) {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n, err == nil && n > 0 && n < 1<<60
}

func has(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}

// unescape undoes the octal escapes of mountinfo: "\040" is a blank.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// lines are the lines of a file; none if it cannot be read.
func lines(root fs.FS, name string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		b, err := fs.ReadFile(root, name)
		if err != nil {
			return
		}
		for line := range strings.Lines(string(b)) {
			if !yield(strings.TrimSuffix(line, "\n")) {
				return
			}
		}
	}
}
