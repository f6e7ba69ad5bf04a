package machine

import (
	"testing"
	"testing/fstest"
)

const (
	mebi = 1 << 20
	v2   = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	v1   = "33 32 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n34 32 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)

// TestMemory: the least of the machine's memory and the limits of all groups from the
// process's up, in both versions, in and outside of a container.
func TestMemory(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  Memory
	}{
		{"no limit", map[string]string{
			"proc/self/cgroup": "0::/user.slice/one\n", "proc/self/mountinfo": v2,
			"sys/fs/cgroup/user.slice/one/memory.max": "max\n", "sys/fs/cgroup/user.slice/memory.max": "max\n",
		}, Memory{1000 * mebi, "this machine"}},
		{"own limit", map[string]string{
			"proc/self/cgroup": "0::/user.slice/one\n", "proc/self/mountinfo": v2,
			"sys/fs/cgroup/user.slice/one/memory.max": "104857600\n",
		}, Memory{100 * mebi, "its cgroup"}},
		{"the limit of a group around it", map[string]string{
			"proc/self/cgroup": "0::/user.slice/one/two\n", "proc/self/mountinfo": v2,
			"sys/fs/cgroup/user.slice/one/two/memory.max": "524288000\n",
			"sys/fs/cgroup/user.slice/memory.max":         "209715200\n",
		}, Memory{200 * mebi, "its cgroup"}},
		{"where it is slowed down", map[string]string{
			"proc/self/cgroup": "0::/one\n", "proc/self/mountinfo": v2,
			"sys/fs/cgroup/one/memory.max": "524288000\n", "sys/fs/cgroup/one/memory.high": "314572800\n",
		}, Memory{300 * mebi, "its cgroup"}},
		{"more than there is", map[string]string{
			"proc/self/cgroup": "0::/one\n", "proc/self/mountinfo": v2,
			"sys/fs/cgroup/one/memory.max": "5242880000\n",
		}, Memory{1000 * mebi, "this machine"}},
		{"a container with the host's paths", map[string]string{
			"proc/self/cgroup": "0::/docker/abc\n", "proc/self/mountinfo": v2,
			"sys/fs/cgroup/memory.max": "52428800\n",
		}, Memory{50 * mebi, "its cgroup"}},
		{"a container that sees only its own group", map[string]string{
			"proc/self/cgroup":         "0::/docker/abc/sub\n",
			"proc/self/mountinfo":      "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup ro\n",
			"sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/sub/memory.max": "73400320\n",
		}, Memory{70 * mebi, "its cgroup"}},
		{"version 1", map[string]string{
			"proc/self/cgroup": "5:cpu,cpuacct:/c\n4:memory:/m/n\n", "proc/self/mountinfo": v1,
			"sys/fs/cgroup/memory/m/n/memory.limit_in_bytes": "9223372036854771712\n",
			"sys/fs/cgroup/memory/m/memory.limit_in_bytes":   "62914560\n",
		}, Memory{60 * mebi, "its cgroup"}},
		{"a directory with a blank", map[string]string{
			"proc/self/cgroup":           "0::/\n",
			"proc/self/mountinfo":        `30 23 0:26 / /mnt/my\040groups rw - cgroup2 cgroup rw` + "\n",
			"mnt/my groups/memory.max":   "41943040\n",
			"sys/fs/cgroup/memory.max":   "1\n",
			"mnt/my\\040groups/nothing":  "",
			"mnt/my groups/memory.other": "1\n",
		}, Memory{40 * mebi, "its cgroup"}},
		{"no groups", map[string]string{}, Memory{1000 * mebi, "this machine"}},
		{"nonsense", map[string]string{
			"proc/self/cgroup": "\n::\n0:\n0::\n:::::\nmemory\n4:memory\n", "proc/self/mountinfo": "\n - \n1 2 3 4 5 - cgroup2\n1 - cgroup2 a b\n",
		}, Memory{1000 * mebi, "this machine"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := fstest.MapFS{"proc/meminfo": {Data: []byte("MemFree:  5 kB\nMemTotal:        1024000 kB\n")}}
			for name, text := range c.files {
				root[name] = &fstest.MapFile{Data: []byte(text)}
			}
			if got := MemoryIn(root); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
	if got := MemoryIn(fstest.MapFS{}); got != (Memory{}) {
		t.Errorf("without /proc: %+v", got)
	}
}
