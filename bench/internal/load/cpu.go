package load

import (
	"bytes"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Pin ties the calling thread, and those it starts, to a CPU.
func Pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	return unix.SchedSetaffinity(0, &set)
}

// CPUTime is the CPU time of processes, user and system, in ns. It is exact: the
// scheduler's own clock of the process, not ticks. A process that is gone is an
// error.
func CPUTime(pids ...int) (int64, error) {
	var sum int64
	for _, pid := range pids {
		var ts unix.Timespec
		// The clock of another process, in the form that clock_getcpuclockid(3) gives.
		if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil {
			return 0, err
		}
		sum += ts.Nano()
	}
	return sum, nil
}

// Reaped is the CPU time in ns, in ticks of 10 ms, of the descendants that a process has
// waited for.
func Reaped(pid int) int64 {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) < 15 {
		return 0
	}
	user, _ := strconv.ParseInt(f[13], 10, 64)
	system, _ := strconv.ParseInt(f[14], 10, 64)
	return (user + system) * 1e7
}

// Tree lists processes and all their descendants.
func Tree(roots []int) []int {
	children := map[int][]int{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return roots
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		// The name in parentheses may hold anything; the rest is fields.
		f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(f) > 1 {
			if parent, err := strconv.Atoi(f[1]); err == nil {
				children[parent] = append(children[parent], pid)
			}
		}
	}
	all := append([]int(nil), roots...)
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}
