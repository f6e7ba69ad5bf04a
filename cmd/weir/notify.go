package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/weir-io/weir"
)

// notifier tells a service manager the state of the service, as sd_notify(3)
// describes: READY=1, STOPPING=1, and WATCHDOG=1 as long as the loop turns. It
// never waits: messages that the manager's socket has no room for are sent
// later, in order. Without a manager a notifier does nothing.
type notifier struct {
	loop    *weir.Loop
	socket  string // "": there is no manager
	queue   []string
	again   *weir.Timer // sends what had no room
	dog     *weir.Timer
	isReady bool
	stopped bool
	extend  bool // ask for time to drain
}

// How often messages without room are tried again, and how many are kept: a few
// in a lifetime; those of the watchdog are not kept.
const (
	notifyAgain = 100 * time.Millisecond
	notifyMost  = 16
)

// newNotifier reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.
func newNotifier(l *weir.Loop, lookup func(string) (string, bool)) *notifier {
	n := &notifier{loop: l}
	socket, _ := lookup("NOTIFY_SOCKET")
	if !strings.HasPrefix(socket, "/") && !strings.HasPrefix(socket, "@") || len(socket) < 2 {
		return n // others, such as vsock:, are for whole machines
	}
	n.socket = socket
	n.again = l.NewTimer(n.flush)
	usec, _ := lookup("WATCHDOG_USEC")
	if pid, ok := lookup("WATCHDOG_PID"); ok && pid != strconv.Itoa(os.Getpid()) {
		return n // another process is watched
	}
	if us, err := strconv.ParseUint(usec, 10, 53); err == nil && us > 0 {
		every := max(time.Duration(us)*time.Microsecond/2, time.Millisecond)
		n.dog = l.NewTimer(func() { n.now("WATCHDOG=1") })
		n.dog.Repeat(every)
	}
	return n
}

// ready reports that the service is up, once.
func (n *notifier) ready(status string) {
	if !n.isReady && !n.stopped {
		n.isReady = true
		n.send("READY=1\nSTATUS=" + oneLine(status))
	}
}

// stopping reports that the service ends, once, and within how long if that is
// not 0.
func (n *notifier) stopping(within time.Duration) {
	if n.stopped {
		return
	}
	n.stopped = true
	text := "STOPPING=1\nSTATUS=stopping"
	if within > 0 {
		text = "STOPPING=1\nSTATUS=draining for at most " + span(within)
		if n.extend {
			text += fmt.Sprintf("\nEXTEND_TIMEOUT_USEC=%d", (within + time.Second).Microseconds())
		}
	}
	n.send(text)
}

// oneLine keeps a message on one line.
func oneLine(s string) string { return strings.ReplaceAll(s, "\n", " ") }

// send sends a message after those that wait.
func (n *notifier) send(text string) {
	if n.socket == "" {
		return
	}
	if len(n.queue) < notifyMost {
		n.queue = append(n.queue, text)
	}
	n.flush()
}

func (n *notifier) flush() {
	for len(n.queue) > 0 {
		if !n.now(n.queue[0]) {
			n.again.Set(notifyAgain)
			return
		}
		n.queue = n.queue[1:]
	}
}

// now sends a message, and reports false if it should be tried again. There is no
// one to tell about a missing socket.
func (n *notifier) now(text string) (done bool) { return !sendDatagram(n.socket, text) }
