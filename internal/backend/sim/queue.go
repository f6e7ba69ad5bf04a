package sim

// kind says what an event is.
type kind uint8

const (
	evArrive      kind = iota + 1 // bytes of s, up to pos, reach its peer; with fin also its end
	evAck                         // s learns that its peer has them, and of more window
	evReset                       // a reset reaches s
	evGone                        // s's peer learns that s was closed: not on TCP, which tells by itself
	evSyn                         // s's wish to connect reaches the listener
	evSynRetry                    // s tries again
	evSynAck                      // the listener's answer reaches s
	evEstablish                   // and s's answer to that the listener
	evRefuse                      // a refusal reaches s
	evNoRoute                     // s learns that there is no such host
	evRetry                       // s sends again what was lost
	evKeepAlive                   // s has probed a peer that does not answer for long enough
	evLate                        // the last result of a canceled Op is due
	evWindow                      // s's window opens again
	evHeal                        // a drawn partition ends
	evRestart                     // a drawn crash ends
	evDatagram                    // packet pos reaches host
	evUnreachable                 // what became of packet pos reaches host, which sent it
	evRoom                        // s can send datagrams again
	evProgram                     // what place says happens to program pos of host edge
)

// event is something that happens at a time. Events of the wire are s's, the
// one that sent it or that it is for, as the kind says; they count only while
// gen is the current one.
type event struct {
	kind  kind
	fin   bool
	place uint8
	gen   uint32
	pos   uint64
	edge  uint64
	s     *socket
	host  *Host // whose it is in the books; nil: no one's
}

// queueKey is an entry of the heap. It holds no pointer, so moving it is cheap.
type queueKey struct {
	at  int64
	seq uint64
	idx uint32
}

func (a *queueKey) before(b *queueKey) bool {
	return a.at < b.at || a.at == b.at && a.seq < b.seq
}

// queue holds events by time, and in the order they were pushed at one time. It
// is a 4-ary heap of keys beside a slab of events.
type queue struct {
	heap []queueKey
	slab []event
	free []uint32
	seq  uint64
}

func (q *queue) push(at int64, ev event) {
	var idx uint32
	if n := len(q.free); n > 0 {
		idx = q.free[n-1]
		q.free = q.free[:n-1]
		q.slab[idx] = ev
	} else {
		idx = uint32(len(q.slab))
		q.slab = append(q.slab, ev)
	}
	q.seq++
	k := queueKey{at: at, seq: q.seq, idx: idx}
	q.heap = append(q.heap, k)
	i := len(q.heap) - 1
	for i > 0 {
		up := (i - 1) / 4
		if !k.before(&q.heap[up]) {
			break
		}
		q.heap[i] = q.heap[up]
		i = up
	}
	q.heap[i] = k
}

// top returns the time of the first event; false if there is none.
func (q *queue) top() (at int64, ev *event, ok bool) {
	if len(q.heap) == 0 {
		return 0, nil, false
	}
	return q.heap[0].at, &q.slab[q.heap[0].idx], true
}

// pop takes the first event, which must be there.
func (q *queue) pop() event {
	idx := q.heap[0].idx
	ev := q.slab[idx]
	q.slab[idx] = event{}
	q.free = append(q.free, idx)
	n := len(q.heap) - 1
	k := q.heap[n]
	q.heap = q.heap[:n]
	if n == 0 {
		return ev
	}
	i := 0
	for {
		first := 4*i + 1
		if first >= n {
			break
		}
		least := first
		for c := first + 1; c < min(first+4, n); c++ {
			if q.heap[c].before(&q.heap[least]) {
				least = c
			}
		}
		if !q.heap[least].before(&k) {
			break
		}
		q.heap[i] = q.heap[least]
		i = least
	}
	q.heap[i] = k
	return ev
}
