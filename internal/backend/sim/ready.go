package sim

// readyList holds the sockets of a backend that may have results, in the order
// they came to have them.
type readyList struct {
	items []*socket
	head  int
}

func (l *readyList) len() int { return len(l.items) - l.head }

func (l *readyList) push(s *socket) {
	if l.head == len(l.items) {
		l.items, l.head = l.items[:0], 0
	} else if l.head > 64 && l.head > len(l.items)/2 {
		n := copy(l.items, l.items[l.head:])
		clear(l.items[n:])
		l.items, l.head = l.items[:n], 0
	}
	l.items = append(l.items, s)
}

// take removes the i-th.
func (l *readyList) take(i int) *socket {
	i += l.head
	s := l.items[i]
	if i != l.head {
		l.items[i] = l.items[l.head]
	}
	l.items[l.head] = nil
	l.head++
	return s
}

func (l *readyList) at(i int) *socket { return l.items[l.head+i] }
