package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/weir-io/weir"
)

// notifier tells a service manager how the service is, as sd_notify(3) describes
// it: READY=1, STOPPING=1, and WATCHDOG=1 as long as the loop turns. It never
// waits: what the manager's socket has no room for is sent later, in order. The
// zero case, no manager, is a notifier that does nothing.
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

// How often what had no room is tried again, and how much of it is kept: a few
// words in a lifetime, and the watchdog's, which are not kept.
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
		return n // it is another process that is watched
	}
	if us, err := strconv.ParseUint(usec, 10, 53); err == nil && us > 0 {
		every := max(time.Duration(us)*time.Microsecond/2, time.Millisecond)
		n.dog = l.NewTimer(func() { n.now("WATCHDOG=1") })
		n.dog.Repeat(every)
	}
	return n
}

// ready says that the service is up, once.
func (n *notifier) ready(status string) {
	if !n.isReady && !n.stopped {
		n.isReady = true
		n.send("READY=1\nSTATUS=" + oneLine(status))
	}
}

// stopping says that the service ends, once, and within how long if that is more
// than nothing.
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

// oneLine keeps what is said in its line.
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

// now sends a message, and reports false if it should be tried again. Of a socket
// that is not there, there is no one to tell.
func (n *notifier) now(text string) (done bool) { return !sendDatagram(n.socket, text) }
