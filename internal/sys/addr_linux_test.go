package sys

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-io/weir/internal/backend"
	"golang.org/x/sys/unix"
)

func inet(s string) backend.Addr {
	return backend.Addr{Family: backend.Inet, IP: netip.MustParseAddrPort(s)}
}

func unixAddr(path string) backend.Addr { return backend.Addr{Family: backend.Unix, Path: path} }

func anySocket(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// TestSockaddr: an address comes back as it went in, or in an equivalent form (R47,
// behaviour 68).
func TestSockaddr(t *testing.T) {
	fd := anySocket(t)
	lo, err := zoneIndex(fd, "lo")
	if err != nil {
		t.Skipf("there is no interface lo: %v", err)
	}
	if lo != 1 {
		t.Logf("lo has number %d", lo)
	}
	for _, c := range []struct {
		in   backend.Addr
		ipv6 bool
		want backend.Addr
	}{
		{in: inet("127.0.0.1:80")},
		{in: inet("255.255.255.255:65535")},
		{in: inet("[::ffff:1.2.3.4]:256"), want: inet("1.2.3.4:256")},
		{in: backend.Addr{Family: backend.Inet}, want: inet("0.0.0.0:0")},
		{in: inet("[::1]:443"), ipv6: true},
		{in: inet("[2001:db8::7]:1"), ipv6: true},
		{in: inet("1.2.3.4:5"), ipv6: true}, // mapped, and back
		{in: backend.Addr{Family: backend.Inet}, ipv6: true, want: inet("[::]:0")},
		{in: inet("[fe80::1%lo]:9"), ipv6: true},
		{in: inet("[fe80::1%1]:9"), ipv6: true, want: inet("[fe80::1%lo]:9")},
		{in: inet("[fe80::1%987654]:9"), ipv6: true},
		{in: unixAddr("")},
		{in: unixAddr("/tmp/x")},
		{in: unixAddr("relative")},
		{in: unixAddr("./@file")},
		{in: unixAddr("@")},
		{in: unixAddr("@abstract\x00with\x00zeros")},
		{in: unixAddr("/" + strings.Repeat("a", 106))},
		{in: unixAddr("@" + strings.Repeat("a", 107))},
	} {
		if c.want.Family == 0 {
			c.want = c.in
		}
		var (
			s   Sockaddr
			got backend.Addr
		)
		if err := s.Encode(&c.in, c.ipv6, fd); err != nil {
			t.Errorf("%v: %v", c.in, err)
			continue
		}
		s.Decode(&got, fd)
		if got != c.want {
			t.Errorf("%v came back as %v, want %v", c.in, got, c.want)
		}
	}
	// Addresses that other programs may have bound.
	var s Sockaddr
	in, got := unixAddr("x/file"), backend.Addr{}
	if err := s.Encode(&in, false, fd); err != nil {
		t.Fatal(err)
	}
	copy(s.bytes()[pathOffset:], "@file\x00")
	if s.Decode(&got, fd); got != unixAddr("./@file") {
		t.Errorf("a file named @file is %q", got.Path)
	}
}

func TestSockaddrRefuses(t *testing.T) {
	fd := anySocket(t)
	for _, c := range []struct {
		in   backend.Addr
		ipv6 bool
		want error
	}{
		{backend.Addr{}, false, unix.EAFNOSUPPORT},
		{inet("[::1]:1"), false, unix.EAFNOSUPPORT},
		{inet("[fe80::1%no-such]:1"), true, unix.ENODEV},
		{inet("[fe80::1%a-name-that-is-far-too-long]:1"), true, unix.ENODEV},
		{unixAddr("/" + strings.Repeat("a", 107)), false, unix.ENAMETOOLONG},
		{unixAddr("@" + strings.Repeat("a", 108)), false, unix.ENAMETOOLONG},
		{unixAddr("a\x00b"), false, unix.EINVAL},
	} {
		var s Sockaddr
		if err := s.Encode(&c.in, c.ipv6, fd); !errors.Is(err, c.want) {
			t.Errorf("%q %v: %v, want %v", c.in.Path, c.in.IP, err, c.want)
		}
	}
}

// TestBoundFile: a listener's file is removed if it is still the listener's, and no
// symlink is followed to change a mode.
func TestBoundFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	listen := func() (int, *Bound) {
		t.Helper()
		fd, file, err := Open(&backend.Spec{Family: backend.Unix, Bind: true, Local: unixAddr(path), Backlog: 1, Mode: 0o600})
		if err != nil {
			t.Fatal(err)
		}
		return fd, file
	}
	fd, file := listen()
	Close(fd)
	file.Remove()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its own file is left: %v", err)
	}
	fd, file = listen()
	Close(fd)
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	if err := os.Symlink(victim, path); err != nil {
		t.Fatal(err)
	}
	if err := file.widen(0o666); err == nil {
		t.Error("the mode of what a symlink names was changed")
	}
	if st, err := os.Stat(victim); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the victim has mode %v, %v", st.Mode(), err)
	}
	file.Remove()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("a symlink in its place was removed: %v", err)
	}
	if _, _, err := Open(&backend.Spec{Family: backend.Unix, Bind: true, Local: unixAddr(path), Backlog: 1}); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a listener where a symlink is: %v, want EADDRINUSE", err)
	}
}

// TestPipe: a pipe holds as much as was asked for, and neither end blocks.
func TestPipe(t *testing.T) {
	r, w, err := SplicePipe(1 << 18)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(r)
	defer Close(w)
	capacity, err := unix.FcntlInt(uintptr(w), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		t.Fatal(err)
	}
	if capacity < 1<<18 {
		t.Logf("the system allows only %d bytes", capacity)
	}
	var buf [1]byte
	if _, errno := Read(r, buf[:]); errno != unix.EAGAIN {
		t.Errorf("read of an empty pipe: %v", errno)
	}
	total := 0
	block := make([]byte, 1<<16)
	for {
		n, errno := Write(w, block)
		if errno == unix.EAGAIN {
			break
		}
		if errno != 0 {
			t.Fatal(errno)
		}
		total += n
	}
	if total < capacity-unix.Getpagesize() {
		t.Errorf("a pipe of %d bytes took %d", capacity, total)
	}
	if Poll(w, unix.POLLOUT) != 0 || Poll(r, unix.POLLIN) != unix.POLLIN {
		t.Error("a full pipe polls as writable, or not as readable")
	}
}

// TestVectorForgets: the memory for vectored calls keeps no bytes alive.
func TestVectorForgets(t *testing.T) {
	r, w, err := SplicePipe(0)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(r)
	defer Close(w)
	var v Vector
	var pieces [][]byte
	for i := range 100 {
		pieces = append(pieces, []byte{byte(i)}, nil)
	}
	n, errno := WriteVec(w, pieces, &v, false)
	if errno != 0 || n != len(v.iov) {
		t.Errorf("wrote %d, %v; one call takes %d pieces", n, errno, len(v.iov))
	}
	for i := range v.iov {
		if v.iov[i].Base != nil {
			t.Fatalf("piece %d is still pointed at", i)
		}
	}
	buf := make([]byte, 200)
	if n, errno = Read(r, buf); errno != 0 || n != len(v.iov) {
		t.Fatal(n, errno)
	}
	for i, x := range buf[:n] {
		if x != byte(i) {
			t.Fatalf("byte %d is %d", i, x)
		}
	}
}

// TestAdopt: how each kind of descriptor has to be treated.
func TestAdopt(t *testing.T) {
	open := func(path string, flags int) func() (int, error) {
		return func() (int, error) { return unix.Open(path, flags|unix.O_CLOEXEC, 0) }
	}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pipeEnd := func(flags int) func() (int, error) {
		return func() (int, error) {
			var p [2]int
			err := unix.Pipe2(p[:], flags)
			t.Cleanup(func() { unix.Close(p[1]) })
			return p[0], err
		}
	}
	for _, c := range []struct {
		name  string
		open  func() (int, error)
		class Class
		moved bool // another descriptor has taken its place
		err   error
	}{
		{"file", open(file, unix.O_RDWR), Plain, false, nil},
		{"directory", open("/", unix.O_RDONLY), 0, false, unix.EISDIR},
		{"path only", open("/", unix.O_PATH), 0, false, unix.EBADF},
		{"null", open("/dev/null", unix.O_RDWR), Polled, false, nil},
		{"null, non-blocking", open("/dev/null", unix.O_RDWR|unix.O_NONBLOCK), Stream, false, nil},
		{"pipe", pipeEnd(0), Stream, true, nil},
		{"pipe, non-blocking", pipeEnd(unix.O_NONBLOCK), Stream, false, nil},
		{"eventfd", func() (int, error) { return unix.Eventfd(0, 0) }, Polled, false, nil},
		{"socket", func() (int, error) { return unix.Socket(unix.AF_INET6, unix.SOCK_STREAM, 0) }, Socket, false, nil},
	} {
		fd, err := c.open()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		before, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		d, err := Adopt(fd)
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
		}
		if c.err != nil {
			unix.Close(fd)
			continue
		}
		if d.Class != c.class || (d.FD != fd) != c.moved || d.Standard != -1 {
			t.Errorf("%s: adopted %d as %+v", c.name, fd, d)
		}
		after, err := unix.FcntlInt(uintptr(d.FD), unix.F_GETFL, 0)
		const matter = unix.O_ACCMODE | unix.O_APPEND | unix.O_NONBLOCK
		want := before
		if c.moved {
			want |= unix.O_NONBLOCK
		}
		if err != nil || (after^want)&matter != 0 {
			t.Errorf("%s: flags went from %#x to %#x (%v)", c.name, before, after, err)
		}
		if flags, _ := unix.FcntlInt(uintptr(d.FD), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("%s: children inherit it", c.name)
		}
		if c.name == "socket" && (d.Family != backend.Inet || !d.IPv6 || !d.Blocks) {
			t.Errorf("%s: %+v", c.name, d)
		}
		if err := CloseAdopted(&d, false); err != nil {
			t.Errorf("%s: close: %v", c.name, err)
		}
	}
}

// TestOpenReleases: a socket that could not be prepared is closed again, and
// its file removed.
func TestOpenReleases(t *testing.T) {
	count := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	before := count()
	for _, spec := range []backend.Spec{
		{Family: backend.FamilyNone},
		{Family: backend.Inet, Options: []backend.OptionValue{{Option: 250}}},
		{Family: backend.Unix, Options: []backend.OptionValue{{Option: backend.NoDelay, Value: 1}}},
		{Family: backend.Inet, Bind: true, Local: inet("203.0.113.77:1")},
		{Family: backend.Unix, Bind: true, Local: unixAddr("/no/such/directory/s"), Backlog: 1},
	} {
		if fd, _, err := Open(&spec); err == nil {
			t.Errorf("%+v was opened", spec)
			Close(fd)
		}
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
