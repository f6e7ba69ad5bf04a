package dns

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Authority is the data of an SOA record (RFC 1035, 3.3.13).
type Authority struct {
	Server  string // the zone's first name server: absolute
	Mailbox string // who is responsible, as a name: its first label is the part before the @
	Serial  uint32
	Refresh time.Duration
	Retry   time.Duration
	Expire  time.Duration
	Minimum time.Duration // how long a negative answer is valid (RFC 2308)
}

// rdata reads the data of a record from the front. Once something is missing,
// it is marked bad, and everything read from then on is empty.
type rdata struct {
	p   []byte
	bad bool
}

func (d *rdata) take(n int) []byte {
	if d.bad || n > len(d.p) {
		d.bad = true
		return make([]byte, n)
	}
	p := d.p[:n]
	d.p = d.p[n:]
	return p
}

func (d *rdata) uint8() int     { return int(d.take(1)[0]) }
func (d *rdata) uint16() int    { return int(binary.BigEndian.Uint16(d.take(2))) }
func (d *rdata) uint32() uint32 { return binary.BigEndian.Uint32(d.take(4)) }

// text is a character string (RFC 1035, 3.3), quoted.
func (d *rdata) text() string { return quote(d.take(d.uint8())) }

// rest is what is left, which must not be empty.
func (d *rdata) rest() []byte {
	p := d.p
	d.p = nil
	d.bad = d.bad || len(p) == 0
	return p
}

func (d *rdata) hex() string    { return fmt.Sprintf("%X", d.rest()) }
func (d *rdata) base64() string { return base64.StdEncoding.EncodeToString(d.rest()) }

// name reads a name without compression, which these types do not use (RFC
// 3597, 4).
func (d *rdata) name() string {
	s := ""
	for range 128 {
		n := d.uint8()
		switch {
		case d.bad || n > 63:
			d.bad = true
			return "."
		case n == 0 && s == "":
			return "."
		case n == 0:
			return s
		}
		label := escapeAll(d.take(n))
		s += strings.ReplaceAll(label, ".", `\.`) + "."
	}
	d.bad = true
	return "."
}

func quote(s []byte) string { return `"` + strings.ReplaceAll(escapeAll(s), `"`, `\"`) + `"` }

// present writes data as a zone file does. It returns false if the type is not
// known here, or if the data do not have its format.
func present(t Type, data []byte) (string, bool) {
	d := rdata{p: data}
	s := ""
	switch t {
	case CAA: // RFC 8659, 4.1.1
		flags := d.uint8()
		tag := escapeAll(d.take(d.uint8()))
		s = fmt.Sprintf("%d %s %s", flags, tag, quote(d.p))
		d.p = nil
	case DS, CDS: // RFC 4034, 5.1
		s = fmt.Sprintf("%d %d %d ", d.uint16(), d.uint8(), d.uint8()) + d.hex()
	case DNSKEY, CDNSKEY: // RFC 4034, 2.1
		s = fmt.Sprintf("%d %d %d ", d.uint16(), d.uint8(), d.uint8()) + d.base64()
	case TLSA, SMIMEA: // RFC 6698, 2.1
		s = fmt.Sprintf("%d %d %d ", d.uint8(), d.uint8(), d.uint8()) + d.hex()
	case SSHFP: // RFC 4255, 3.1
		s = fmt.Sprintf("%d %d ", d.uint8(), d.uint8()) + d.hex()
	case HINFO:
		s = d.text() + " " + d.text()
	case DNAME:
		s = d.name()
	case NAPTR: // RFC 3403, 4.1
		s = fmt.Sprintf("%d %d ", d.uint16(), d.uint16())
		s += d.text() + " " + d.text() + " " + d.text() + " " + d.name()
	case RRSIG: // RFC 4034, 3.1
		s = fmt.Sprintf("%s %d %d %d ", Type(d.uint16()), d.uint8(), d.uint8(), d.uint32())
		for range 2 {
			s += time.Unix(int64(d.uint32()), 0).UTC().Format("20060102150405") + " "
		}
		s += fmt.Sprintf("%d ", d.uint16()) + d.name() + " " + d.base64()
	case NSEC: // RFC 4034, 4.1
		s = d.name()
		for len(d.p) > 0 && !d.bad {
			window := d.uint8()
			for i, b := range d.take(d.uint8()) {
				for bit := range 8 {
					if b&(0x80>>bit) != 0 {
						s += " " + Type(window<<8|i<<3|bit).String() //nolint:gosec // 16 bits
					}
				}
			}
		}
	default:
		return "", false
	}
	return s, !d.bad && len(d.p) == 0
}

// unknown writes data as RFC 3597, 5 does.
func unknown(data []byte) string {
	if len(data) == 0 {
		return `\# 0`
	}
	return fmt.Sprintf(`\# %d %x`, len(data), data)
}

// paramNames are the parameters of SVCB and HTTPS (RFC 9460, 14.3.2), by their keys.
var paramNames = [...]string{"mandatory", "alpn", "no-default-alpn", "port", "ipv4hint", "ech", "ipv6hint", "dohpath", "ohttp"}

func paramName(key uint16) string {
	if int(key) < len(paramNames) {
		return paramNames[key]
	}
	return "key" + strconv.Itoa(int(key))
}

// String writes the parameter as a zone file does (RFC 9460, 2.1).
func (p Param) String() string {
	d := rdata{p: p.Value}
	var all []string
	switch p.Key {
	case 0:
		for len(d.p) > 0 && !d.bad {
			all = append(all, paramName(uint16(d.uint16()))) //nolint:gosec // 16 bits
		}
	case 1:
		for len(d.p) > 0 && !d.bad {
			// A comma within a value is escaped, and its backslash is escaped
			// in turn (RFC 9460, A.1).
			proto := escapeAll(d.take(d.uint8()))
			proto = strings.ReplaceAll(strings.ReplaceAll(proto, `\\`, `\\\\`), ",", `\\,`)
			all = append(all, strings.ReplaceAll(proto, `"`, `\"`))
		}
	case 3:
		all = append(all, strconv.Itoa(d.uint16()))
		d.bad = d.bad || len(d.p) > 0
	case 4, 6:
		size := 4
		if p.Key == 6 {
			size = 16
		}
		for len(d.p) > 0 && !d.bad {
			a, _ := netip.AddrFromSlice(d.take(size))
			all = append(all, a.String())
		}
	case 5:
		all = append(all, d.base64())
	case 2, 8:
		if len(p.Value) == 0 {
			return paramName(p.Key)
		}
		d.bad = true
	default:
		d.bad = true
	}
	switch {
	case d.bad || len(all) == 0:
		name := "key" + strconv.Itoa(int(p.Key))
		if p.Key == 7 {
			name = paramName(p.Key)
		}
		if len(p.Value) == 0 {
			return name
		}
		return name + "=" + quote(p.Value)
	case p.Key == 1 || p.Key == 5:
		return paramName(p.Key) + `="` + strings.Join(all, ",") + `"`
	}
	return paramName(p.Key) + "=" + strings.Join(all, ",")
}
