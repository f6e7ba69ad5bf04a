package task

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// String draws the scope, what is inside it and where each task waits:
//
//	root
//	├─ accept: waits for a queue (connections)
//	└─ connection 7: waits for its timer
//	   └─ scope, canceled: future: timed out
//	      └─ reader: runs
func (sc *Scope) String() string {
	var b strings.Builder
	sc.draw(&b, "", "")
	return b.String()
}

// String is the task's part of the tree.
func (t *Task) String() string { return t.own.String() }

func (sc *Scope) draw(b *strings.Builder, first, rest string) {
	b.WriteString(first)
	b.WriteString(sc.name)
	if sc.canceled {
		fmt.Fprintf(b, ", canceled: %v", sc.cause)
	} else if !sc.deadline.IsZero() {
		fmt.Fprintf(b, ", until %s", sc.deadline.Format(time.RFC3339Nano))
	}
	if sc.shielded {
		b.WriteString(", shielded")
	}
	if sc.isTask {
		b.WriteString(": ")
		b.WriteString(sc.task.doing())
	}
	b.WriteByte('\n')
	for c := sc.first; c != nil; c = c.next {
		if c.next != nil {
			c.draw(b, rest+"├─ ", rest+"│  ")
		} else {
			c.draw(b, rest+"└─ ", rest+"   ")
		}
	}
}

func (t *Task) doing() string {
	switch t.state {
	case stateNew, stateQueued:
		return "is about to run"
	case stateRunning:
		return "runs"
	case stateEnded:
		return "has ended"
	case stateStranded:
		return "cannot be resumed on this thread"
	case stateWaiting:
	}
	if where := t.line(); where != "" {
		return "waits for " + t.wait.WaitingFor() + " at " + where
	}
	return "waits for " + t.wait.WaitingFor()
}

// mark records where the task is: the callers of the wait that calls mark.
func (t *Task) mark() {
	if t.where == nil {
		t.where = make([]uintptr, 16)
	}
	t.where = t.where[:runtime.Callers(3, t.where[:cap(t.where)])]
}

// line is the innermost place in the wait's stack that is not in this package.
func (t *Task) line() string {
	if len(t.where) == 0 {
		return ""
	}
	frames := runtime.CallersFrames(t.where)
	for {
		f, more := frames.Next()
		if !strings.Contains(f.Function, "github.com/weir-io/weir/task.") && !strings.Contains(f.Function, "github.com/weir-io/weir/task/stream.") {
			return fmt.Sprintf("%s:%d", filepath.Base(f.File), f.Line)
		}
		if !more {
			return ""
		}
	}
}
