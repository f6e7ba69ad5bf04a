package advice

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// listening is the state of a listening socket in /proc/net/tcp.
const listening = "0A"

// holderOfPort names the process that listens on a TCP port, if we may see it.
func holderOfPort(host string, port uint16) string {
	want, err := netip.ParseAddr(host)
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, rerr := os.ReadFile(table)
		if rerr != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			// sl local rem st tx:rx tr:when retrnsmt uid timeout inode
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != listening {
				continue
			}
			have, ok := procAddr(f[1])
			if !ok || have.Port() != port {
				continue
			}
			ip := have.Addr().Unmap()
			if err == nil && !ip.IsUnspecified() && !want.IsUnspecified() && ip != want.Unmap() {
				continue
			}
			if who := holderOfInode(f[9]); who != "" {
				return who
			}
		}
	}
	return ""
}

// procAddr reads an address of /proc/net/tcp: words in the machine's order.
func procAddr(s string) (netip.AddrPort, bool) {
	host, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	p, perr := strconv.ParseUint(port, 16, 16)
	if err != nil || perr != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	a, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(a, uint16(p)), ok
}

// holderOfUnix names the process that listens on a UNIX socket.
func holderOfUnix(path string) string {
	text, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		// Num RefCount Protocol Flags Type St Inode Path
		f := strings.Fields(line)
		if len(f) < 8 || f[7] != path || f[3] != "00010000" { // it accepts connections
			continue
		}
		if who := holderOfInode(f[6]); who != "" {
			return who
		}
	}
	return ""
}

// holderOfInode finds the process that has a socket open.
func holderOfInode(inode string) string {
	fds, err := filepath.Glob("/proc/[0-9]*/fd/[0-9]*")
	if err != nil {
		return ""
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err != nil || to != "socket:["+inode+"]" {
			continue
		}
		proc := filepath.Dir(filepath.Dir(fd))
		name, err := os.ReadFile(filepath.Join(proc, "comm"))
		if err != nil {
			continue
		}
		return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), filepath.Base(proc))
	}
	return ""
}
