package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	packetMessages = 32      // of one call
	packetRoom     = 1 << 16 // bytes of a message
	packetHead     = 8       // bytes of a datagram that say its flow and its number
	packetBuffers  = 4 << 20 // bytes of the load's own sockets

	packetSilence = 20 * time.Millisecond // after which what is under way is taken for lost
)

// mmsg is the kernel's struct mmsghdr.
type mmsg struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// packetBox is room for what one call receives or sends.
type packetBox struct {
	msg     [packetMessages]mmsg
	iov     [packetMessages]unix.Iovec
	from    [packetMessages]unix.RawSockaddrInet4
	control [packetMessages][8]uint64
	room    [packetMessages][]byte
	segment [packetMessages]int // bytes of each datagram of a message, but of the last
}

func newPacketBox() *packetBox {
	b := new(packetBox)
	for i := range b.room {
		b.room[i] = make([]byte, packetRoom)
	}
	return b
}

// receive takes as many messages as there are.
func (b *packetBox) receive(fd int) (int, error) {
	for i := range b.msg {
		b.iov[i].Base = unsafe.SliceData(b.room[i])
		b.iov[i].SetLen(packetRoom)
		b.msg[i] = mmsg{hdr: unix.Msghdr{
			Name: (*byte)(unsafe.Pointer(&b.from[i])), Namelen: unix.SizeofSockaddrInet4,
			Iov: &b.iov[i], Iovlen: 1, Control: (*byte)(unsafe.Pointer(&b.control[i])), Controllen: 64,
		}}
	}
	n, _, e := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.msg)), packetMessages, unix.MSG_DONTWAIT, 0, 0)
	if e == unix.EAGAIN || e == unix.EINTR {
		return 0, nil
	}
	if e != 0 {
		return 0, fmt.Errorf("recvmmsg: %w", e)
	}
	for i := range int(n) {
		b.segment[i] = int(b.msg[i].n)
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b.control[i]))
		if b.msg[i].hdr.Controllen >= unix.SizeofCmsghdr && h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO {
			b.segment[i] = min(int(*(*int32)(unsafe.Pointer(&b.control[i][2]))), b.segment[i])
		}
	}
	return int(n), nil
}

// put makes p the i-th message to send, of datagrams of size bytes.
func (b *packetBox) put(i int, p []byte, size int, to *unix.RawSockaddrInet4) {
	b.iov[i].Base = unsafe.SliceData(p)
	b.iov[i].SetLen(len(p))
	h := unix.Msghdr{Iov: &b.iov[i], Iovlen: 1}
	if to != nil {
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(to)), unix.SizeofSockaddrInet4
	}
	if len(p) > size {
		c := (*unix.Cmsghdr)(unsafe.Pointer(&b.control[i]))
		c.Level, c.Type = unix.SOL_UDP, unix.UDP_SEGMENT
		c.SetLen(unix.CmsgLen(2))
		*(*uint16)(unsafe.Pointer(&b.control[i][2])) = uint16(size)
		h.Control = (*byte)(unsafe.Pointer(c))
		h.SetControllen(unix.CmsgSpace(2))
	}
	b.msg[i] = mmsg{hdr: h}
}

// send sends the first n messages; what does not fit is lost.
func (b *packetBox) send(fd, n int) error {
	_, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.msg)), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	runtime.KeepAlive(b)
	if e == 0 || e == unix.EAGAIN || e == unix.EINTR || e == unix.ENOBUFS || e == unix.ECONNREFUSED {
		return nil
	}
	return fmt.Errorf("sendmmsg: %w", e)
}

// packetSocket opens a socket of the load. Where the sender joins datagrams, the receiver
// takes them joined.
func packetSocket(s *Spec) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, packetBuffers)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, packetBuffers)
	if s.Join {
		if err := unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1); err != nil {
			return -1, fmt.Errorf("UDP_GRO: %w", err)
		}
	}
	return fd, nil
}

// PacketBackend is what a relay of datagrams sends to: it sends each back.
type PacketBackend struct {
	fd   int
	box  *packetBox
	Addr string
}

// ListenPackets makes a PacketBackend.
func ListenPackets(s *Spec) (*PacketBackend, error) {
	fd, err := packetSocket(s)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, err
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return nil, err
	}
	return &PacketBackend{fd, newPacketBox(), fmt.Sprintf("127.0.0.1:%d", sa.(*unix.SockaddrInet4).Port)}, nil
}

func (b *PacketBackend) serve() error {
	for {
		n, err := b.box.receive(b.fd)
		if err != nil {
			return err
		}
		for i := range n {
			b.box.put(i, b.box.room[i][:b.box.msg[i].n], b.box.segment[i], &b.box.from[i])
		}
		if n > 0 {
			err = b.box.send(b.fd, n)
		}
		if err != nil || n < packetMessages {
			return err
		}
	}
}

// packetFlow is a socket of the load; its datagrams are numbered.
type packetFlow struct {
	fd         int
	sent, came uint32
}

// packets is a load of Kind Datagrams.
type packets struct {
	spec    *Spec
	w       *window
	poll    *poller
	backend *PacketBackend
	flows   []packetFlow
	next    int // flow that sends next
	under   int // datagrams under way
	all     uint64
	pat     pattern
	in, out *packetBox
	mem     []byte // of what is sent
}

// RunPackets sends datagrams by Conns flows to a server that sends them back, or through a
// relay to b, which does. Depth are under way at once; each flow sends Burst of them at a time,
// joined (UDP GSO) with Join. It calls primed when each flow has had its first answer. What
// does not come back is counted, and does not stop it. It goes on after the window until Least
// have come back, for at most ten times Run.
func RunPackets(s *Spec, b *PacketBackend, primed func() error) (Result, error) {
	p := &packets{spec: s, backend: b, pat: newPattern(), in: newPacketBox(), out: newPacketBox()}
	if s.Size < packetHead || s.Burst < 1 || s.Burst > 64 || s.Burst*s.Size > packetRoom || !s.Join && s.Burst > packetMessages {
		return Result{}, fmt.Errorf("no datagrams of %d bytes, %d at a time", s.Size, s.Burst)
	}
	p.mem = make([]byte, s.Burst*s.Size)
	for i := 0; i < len(p.mem); i += s.Size {
		copy(p.mem[i+packetHead:i+s.Size], p.pat)
	}
	if err := p.open(); err != nil {
		return Result{}, err
	}
	p.w = newWindow(&Spec{Warm: time.Hour})
	if err := p.prime(); err != nil {
		return Result{}, err
	}
	if err := primed(); err != nil {
		return Result{}, err
	}
	p.all = 0
	p.w = newWindow(s)
	for longest := 10 * int64(s.Run); !p.w.shut || p.all < s.Least && p.w.now() < longest; {
		if err := p.w.step(p.w.now()); err != nil {
			return Result{}, err
		}
		if err := p.fill(); err != nil {
			return Result{}, err
		}
		if err := p.turn(); err != nil {
			return Result{}, err
		}
	}
	p.w.res.All = p.all
	return p.w.result(), nil
}

func (p *packets) open() error {
	var err error
	if p.poll, err = newPoller(); err != nil {
		return err
	}
	d, err := newDialer(p.spec.Addr, 1)
	if err != nil {
		return err
	}
	for i := range p.spec.Conns {
		fd, err := packetSocket(p.spec)
		if err != nil {
			return err
		}
		if err := unix.Connect(fd, &d.to); err != nil {
			return err
		}
		if err := p.poll.add(fd, i, unix.EPOLLIN); err != nil {
			return err
		}
		p.flows = append(p.flows, packetFlow{fd: fd})
	}
	if p.backend != nil {
		return p.poll.add(p.backend.fd, len(p.flows), unix.EPOLLIN)
	}
	return nil
}

var errNoAnswer = errors.New("a flow had no answer")

// prime waits for an answer on each flow, some flows at a time, and asks again.
func (p *packets) prime() error {
	const some, tries = 16, 100
	for from := 0; from < len(p.flows); from += some {
		group := p.flows[from:min(from+some, len(p.flows))]
		for try := 0; ; try++ {
			missing := 0
			for i := range group {
				if f := &group[i]; f.came == 0 {
					missing++
					if err := p.burst(from+i, 1); err != nil {
						return err
					}
				}
			}
			if missing == 0 {
				break
			}
			if try == tries {
				return errNoAnswer
			}
			for p.under > 0 {
				if err := p.turn(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// fill sends until enough is under way.
func (p *packets) fill() error {
	for p.under+p.spec.Burst <= p.spec.Depth {
		if err := p.burst(p.next, p.spec.Burst); err != nil {
			return err
		}
		p.next = (p.next + 1) % len(p.flows)
	}
	return nil
}

// burst sends n datagrams of a flow.
func (p *packets) burst(flow, n int) error {
	f, size := &p.flows[flow], p.spec.Size
	for i := range n {
		f.sent++
		binary.LittleEndian.PutUint32(p.mem[i*size:], uint32(flow))
		binary.LittleEndian.PutUint32(p.mem[i*size+4:], f.sent)
	}
	p.under += n
	if p.spec.Join {
		p.out.put(0, p.mem[:n*size], size, nil)
		return p.out.send(f.fd, 1)
	}
	for i := range n {
		p.out.put(i, p.mem[i*size:(i+1)*size], size, nil)
	}
	return p.out.send(f.fd, n)
}

// turn waits for what comes back, and takes it. It waits without sleeping, so that no server
// pays for waking the load: a peer on another machine would not be woken either.
func (p *packets) turn() error {
	var (
		evs []unix.EpollEvent
		err error
	)
	for from := time.Now(); len(evs) == 0 && time.Since(from) < packetSilence; {
		if evs, err = p.poll.wait(0); err != nil {
			return err
		}
	}
	if len(evs) == 0 && p.under > 0 {
		if p.w.counting() {
			p.w.res.Late += uint64(p.under)
		}
		p.under = 0
	}
	for _, ev := range evs {
		if int(ev.Fd) == len(p.flows) {
			err = p.backend.serve()
		} else {
			err = p.take(int(ev.Fd))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// take takes what came for a flow.
func (p *packets) take(flow int) error {
	n, err := p.in.receive(p.flows[flow].fd)
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil // said once, of one that was sent before the server listened
	}
	if err != nil {
		return err
	}
	for i := range n {
		for rest := p.in.room[i][:p.in.msg[i].n]; len(rest) > 0; {
			one := rest[:min(p.in.segment[i], len(rest))]
			rest = rest[len(one):]
			if err := p.came(flow, one); err != nil {
				return err
			}
		}
	}
	return nil
}

// came takes one datagram that came back.
func (p *packets) came(flow int, one []byte) error {
	f := &p.flows[flow]
	if len(one) != p.spec.Size {
		return fmt.Errorf("a datagram of %d bytes came back with %d", p.spec.Size, len(one))
	}
	whose, number := binary.LittleEndian.Uint32(one), binary.LittleEndian.Uint32(one[4:])
	if int(whose) != flow || number <= f.came || number > f.sent {
		return fmt.Errorf("datagram %d of flow %d came for flow %d, after %d of %d", number, whose, flow, f.came, f.sent)
	}
	if err := p.pat.check(0, 0, one[packetHead:]); err != nil {
		return err
	}
	f.came = number
	p.under = max(0, p.under-1)
	p.all++
	if p.w.counting() {
		p.w.res.Messages++
		p.w.res.Bytes += uint64(len(one))
	}
	return nil
}
