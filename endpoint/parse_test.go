package endpoint

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir/serial"
)

// brief writes a tree in one line: kind(arg){options} for each part.
func brief(e *Endpoint) string {
	var parts []string
	for _, p := range append([]*Part{e.Base}, e.Layers...) {
		s := p.Name.Text
		if p.Short {
			s = "~" + s
		}
		if p.Arg != nil {
			s += "(" + p.Arg.Text + ")"
		}
		for _, o := range p.Options {
			s += " " + o.Key.Text
			if o.Value != nil {
				s += "=" + o.Value.Text
			}
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, " | ")
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		// Rule 3: the short forms.
		{"8080", "~tcp-listen(8080)"},
		{"0", "~tcp-listen(0)"},
		{":8080", "~tcp-listen(:8080)"},
		{"host:8080", "~tcp(host:8080)"},
		{"192.0.2.1:80", "~tcp(192.0.2.1:80)"},
		{"-", "~stdio"},
		{"/run/app.sock", "~unix(/run/app.sock)"},
		{"~/app.sock", "~unix(~/app.sock)"},
		{"tls:443", "~tcp(tls:443)"},
		{"tcp-lisen:80", "~tcp(tcp-lisen:80)"},
		{"1080+socks5", "~tcp-listen(1080) | socks5"},
		// Rule 4: the port comes after the last colon.
		{"tcp:::1:8080", "tcp(::1:8080)"},
		{"tcp:fe80::1%25eth0:80", "tcp(fe80::1%eth0:80)"},
		{"fe80::1%25eth0:80", "~tcp(fe80::1%eth0:80)"},
		{"2001:db8::1:80", "~tcp(2001:db8::1:80)"},
		{"tcp:[::1]:8080", "tcp([::1]:8080)"},
		{"tcp-listen:::1:8080", "tcp-listen(::1:8080)"},
		{"tcp-listen::8080", "tcp-listen(:8080)"},
		{"tcp-listen:8080", "tcp-listen(8080)"},
		// Rule 5: three escapes, nothing else.
		{"/a%2Bb%2Cc%25d", "~unix(/a+b,c%d)"},
		{"/a%2bb%2cc", "~unix(/a+b,c)"},
		{"/a b=c:d", "~unix(/a b=c:d)"},
		// Rule 7: options belong to the part they are written on.
		{"host:80,retry=30s,nagle+tls,ca=corp.pem", "~tcp(host:80) retry=30s nagle | tls ca=corp.pem"},
		{"unix-listen:@name", "unix-listen(@name)"},
		{"unix-listen:~/x,mode=0600", "unix-listen(~/x) mode=0600"},
		{"host:80+tls,allow-cn=a=b", "~tcp(host:80) | tls allow-cn=a=b"},
		{"fd:3,out=4", "fd(3) out=4"},
		{"pipe,out=/tmp/x", "pipe out=/tmp/x"},
		{"proxy:1080+socks5:db:5432+tls", "~tcp(proxy:1080) | socks5(db:5432) | tls"},
		// Rule 8: secrets.
		{"p:1080+socks5:db:80,user=u,password=env:PW", "~tcp(p:1080) | socks5(db:80) user=u password=env:PW"},
	} {
		e, err := later().Parse(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if got := brief(e); got != c.want {
			t.Errorf("%s: got %s, want %s", c.in, got, c.want)
		}
		again, err := later().Parse(e.String())
		if err != nil || brief(again) != brief(e) {
			t.Errorf("%s: written as %s, which parses to %v, %v", c.in, e.String(), again, err)
		}
	}
}

// TestErrors is behaviour 89: every mistake is an error that points at the
// character and suggests the nearest right word. Rule 7: nothing is guessed.
func TestErrors(t *testing.T) {
	for _, c := range []struct{ in, carets, want string }{
		{"localhost:3000+tsl", "               ^^^", `unknown layer "tsl"|did you mean "tls"?`},
		{"tpc:localhost:80", "^^^", `unknown kind "tpc"|did you mean "tcp"?`},
		{"tcp-lisen::80", "^^^^^^^^^", `unknown kind "tcp-lisen"|did you mean "tcp-listen"?`},
		{"frob", "^^^^", `unknown kind "frob"|to connect to a host write frob:port`},
		{"http://localhost:80/a", "^^^^", `unknown kind "http"|an endpoint is not a URL: write localhost:80`},
		{"https://example.com", "^^^^^", `unknown kind "https"|an endpoint is not a URL: write example.com:443+tls`},
		{"wss://example.com/p", "^^^", `unknown kind "wss"|an endpoint is not a URL: write example.com:443+tls+ws:/p`},
		{"ws://[::1]:8080", "^^", `unknown kind "ws"|an endpoint is not a URL: write [::1]:8080+ws`},
		{"socks5://proxy", "^^^^^^", `unknown kind "socks5"|an endpoint is not a URL: write proxy:1080+socks5:host:port`},
		{"socks5h://", "^^^^^^^", `unknown kind "socks5h"|an endpoint is not a URL: write host:1080+socks5:host:port`},
		{"tcp://db:5432", "^^^^^^", "tcp:// begins a URL, and an endpoint is not a URL|write db:5432"},
		{"unix:///run/a", "^^^^^^^", "unix:// begins a URL, and an endpoint is not a URL|write /run/a"},
		{"0.0.0.0:8080", "^^^^^^^^^^^^", "0.0.0.0:8080 would connect, but 0.0.0.0 is not a host to connect to|to listen on every interface write :8080"},
		{"[::]:8080", "^^^^^^^^^", "[::]:8080 would connect, but [::] is not a host to connect to|to listen on every interface write :8080"},
		{"*:8080", "^^^^^^", "*:8080 would connect, but * is not a host to connect to|to listen on every interface write :8080"},
		{"host:http", "^^^^^^^^^", `unknown kind "host"|or, for a host, a port is a number from 0 to 65535`},
		{"./app.sock", "^^^^^^^^^^", `unknown kind "./app.sock"|for a UNIX socket write unix:./app.sock`},
		{"tls:frob", "^^^", `"tls" is a layer, not a kind|put it after an endpoint: host:port+tls`},
		{"a:80+tcp", "     ^^^", `unknown layer "tcp"|"tcp" is a kind, which can only stand first`},
		// Ports.
		{"80x", "^^^", `bad port "80x"|a port is a number from 0 to 65535`},
		{"99999", "^^^^^", `bad port "99999"|a port is a number from 0 to 65535`},
		{"host:80x", "     ^^^", `bad port "80x"|a port is a number from 0 to 65535`},
		{"host:0", "     ^", `bad port "0"|a port to connect to is a number from 1 to 65535`},
		{"host:080", "     ^^^", `bad port "080"|write it without leading zeros`},
		{":65536", " ^^^^^", `bad port "65536"|a port is a number from 0 to 65535`},
		{":", " ^", `missing port|a port is a number from 0 to 65535`},
		{"tcp:host:", "         ^", `missing port|a port is a number from 0 to 65535`},
		{"::1:8080", "^^^^^^^^", `bad port ":1:8080"|for an IPv6 address write tcp:::1:8080`},
		{"tcp:fe80::1%25eth0:80y", "                   ^^^", `bad port "80y"|a port is a number from 0 to 65535`},
		{"tcp:8080", "    ^^^^", `missing host before port 8080|localhost:8080 is this machine`},
		{"tcp::8080", "    ^", `missing host before the port|localhost:8080 is this machine`},
		{"tcp:host", "    ^^^^", `missing port after "host"|write host:port`},
		// Hosts.
		{"tcp:1:2:80", "    ^^^", `bad host "1:2"|not an IPv6 address; the port stands after the last colon`},
		{"256.0.0.1:80", "^^^^^^^^^", `bad host "256.0.0.1"|an IPv4 address is four numbers from 0 to 255`},
		{"a b:80", " ^", `bad host "a b"|' ' is not allowed in a name`},
		{"tcp:http://x:80", "    ^^^^^^^^", `bad host "http://x"|not an IPv6 address; the port stands after the last colon`},
		// Missing and left over.
		{"", "^", `missing endpoint|such as 8080, host:80, /run/app.sock or -`},
		{",retry=1s", "^", `missing endpoint|such as 8080, host:80, /run/app.sock or -`},
		{"a:80+", "     ^", `missing layer after +|a + in a value is written %2B`},
		{"a:80++tls", "     ^", `missing layer after +|a + in a value is written %2B`},
		{"a:80,", "     ^", `missing option after the comma|a comma in a value is written %2C`},
		{"a:80,,nagle", "     ^", `missing option after the comma|a comma in a value is written %2C`},
		{"a:80,=x", "     ^^", `missing option after the comma|a comma in a value is written %2C`},
		{"unix:", "    ^", `missing path|@name after unix:|write unix:path|@name`},
		{"unix", "^^^^", `missing path|@name after unix|write unix:path|@name`},
		{"stdio:x", "     ^^", `stdio takes nothing after the colon|`},
		{"a:80,retry", "     ^^^^^", `missing value of option "retry"|write retry=duration: 30s, 1m30s, 250ms`},
		{"a:80,retry=", "     ^^^^^^", `missing value of option "retry"|write retry=duration: 30s, 1m30s, 250ms`},
		{"a:80,nagle=yes", "          ^^^^", `option "nagle" takes no value|`},
		{"a:80+reset", "     ^^^^^", `reset needs a chance or a number of bytes|add ,chance=0.01 or ,after=1k`},
		// Options.
		{"a:80,retyr=1s", "     ^^^^^", `unknown option "retyr" of tcp|did you mean "retry"?`},
		{"a:80,cert=x", "     ^^^^", `unknown option "cert" of tcp|+tls has it; an option is written after the part it belongs to`},
		{"8080,retry=1s", "     ^^^^^", `unknown option "retry" of tcp-listen|tcp has it; an option is written after the part it belongs to`},
		{"a:80,frobnicate", "     ^^^^^^^^^^", `unknown option "frobnicate" of tcp|`},
		{"a:80,nagle,nagle", "           ^^^^^", `option "nagle" is given twice|`},
		{"a:80,sequential,headstart=1s", "                ^^^^^^^^^^^^", `options "sequential" and "headstart" cannot be combined|`},
		{"a:80,headstart=1s,sequential", "                  ^^^^^^^^^^", `options "headstart" and "sequential" cannot be combined|`},
		{"a:80+tls,insecure,ca=x", "                  ^^^^", `options "insecure" and "ca" cannot be combined|`},
		{"127.0.0.1:80,family=6", "^^^^^^^^^^^^", `127.0.0.1 is an IPv4 address, but family=6 was given|`},
		{"127.0.0.1:80,bind=::1", "                  ^^^", `bind=::1 and 127.0.0.1 are of different families|`},
		{"a:80,family=4,bind=::1", "                   ^^^", `bind=::1 and family=4 are of different families|`},
		{"unix-listen:@x,mode=0600", "               ^^^^", `an abstract socket has no file, and so no mode|`},
		// Values.
		{"a:80,retry=30", "           ^^", `bad duration "30"|a unit is missing: 30s for seconds, 30ms for milliseconds`},
		{"a:80,retry=soon", "           ^^^^", `bad duration "soon"|write it like 30s, 1m30s or 250ms`},
		{"a:80,retry=-1s", "           ^^^", `bad duration "-1s"|it must be above 0`},
		{"a:80,family=7", "            ^", `bad value "7"|one of 4, 6`},
		{"8080,backlog=65536", "             ^^^^^", `bad number "65536"|a whole number from 1 to 65535`},
		{"a:80,keepalive=10h", "               ^^^", `bad duration "10h"|it must be above 0 and at most 9h6m7s`},
		{"a:80,user-timeout=600h", "                  ^^^^", `bad duration "600h"|it must be above 0 and at most 596h31m23.647s`},
		{"a:80,timeout=3000000h", "             ^^^^^^^^", `bad duration "3000000h"|write it like 30s, 1m30s or 250ms, up to 2562047h`},
		{"a:80,mark=4294967296", "          ^^^^^^^^^^", `bad number "4294967296"|a whole number from 1 to 4294967295`},
		{"8080+ws,max=2g", "            ^^", `bad size "2g"|it must be at most 1g`},
		{"8080+zstd,max-window=2g", "                     ^^", `bad size "2g"|it must be at most 1g`},
		{"8080+slice:2g", "           ^^", `bad size "2g"|it must be at most 1g`},
		{"8080,backlog=0", "             ^", `bad number "0"|a whole number from 1 to 65535`},
		{"unix-listen:/x,mode=0999", "                    ^^^^", `bad mode "0999"|permission bits in octal, such as 0600`},
		{"a:80,bind=b", "          ^", `bad IP address "b"|an address such as 127.0.0.1 or ::1, without a name or port`},
		{"a:80+proxy-out:v3", "               ^^", `bad value "v3"|did you mean "v1"?`},
		{"fd:99999999999", "   ^^^^^^^^^^^", `bad descriptor "99999999999"|a number such as 3`},
		{"fd:web,out=4", "       ^^^", `a named descriptor is a listening socket and cannot be joined with another|`},
		{"serial:/dev/ttyS0,115200,9600", "                         ^^^^", `option "speed" stands twice|9600 alone means speed=9600`},
		{"serial:/dev/ttyS0,0", "                  ^", `bad number "0"|a whole number from 1 to 2147483647`},
		{"serial:/dev/ttyS0,8x1", "                  ^^^", `bad format "8x1"|bits 5 to 8, parity n, e, o, m (mark) or s (space), stop bits 1 or 2: 8n1`},
		{"serial:/dev/ttyS0,speed", "                  ^^^^^", `missing value of option "speed"|write speed=number: a whole number from 1 to 2147483647`},
		{"serial:/dev/ttyS0,fast", "                  ^^^^", `unknown option "fast" of serial|udp-replay has it; an option is written after the part it belongs to`},
		{"serial:/dev/ttyS0,flow=rtscts,rts=on", "                              ^^^", `with flow=rtscts the system moves RTS|`},
		{"a:80,115200", "     ^^^^^^", `unknown option "115200" of tcp|`},
		{"vsock:5000", "      ^^^^", `bad address "5000"|write CID:port`},
		{"vsock::5000", "      ^^^^^", `bad address ":5000"|write CID:port`},
		{"vsock:hots:5000", "      ^^^^^^^^^", `bad address "hots:5000"|CID must be a number, local or host`},
		{"vsock-listen:4294967296", "             ^^^^^^^^^^", `bad address ":4294967296"|port must be a number from 0 to 4294967295`},
		{"rfcomm:01:23:45:67:89:3", "       ^^^^^^^^^^^^^^^^", `bad address "01:23:45:67:89:3"|a Bluetooth device is six bytes in hexadecimal with colons between them`},
		{"rfcomm:01:23:45:67:89:AB:31", "       ^^^^^^^^^^^^^^^^^^^^", `bad address "01:23:45:67:89:AB:31"|channel must be a number from 0 to 30`},
		{"sctp:127.0.0.1:80,bind=127.0.0.2,bind=::1", "                                      ^^^", `bind=::1 and 127.0.0.1 are of different families|`},
		{"sctp-listen::80,also=127.0.0.2", "                ^^^^", `also= needs a first address to listen on|write sctp-listen:ADDRESS:PORT,also=ADDRESS`},
		{"pipe", "^^^^", `a pipe to read from or to write to is missing|write pipe:PATH, or pipe,out=PATH`},
		{"unix:~bob/x", "     ^^^^^^", `bad path "~bob/x"|only ~/ is expanded; write ./~bob/x for a file of that name`},
		// Escapes.
		{"/a%20b", "  ^^^", `bad escape|only %25, %2B and %2C stand for % and + and , (weir quote escapes for you)`},
		{"/a%", "  ^", `bad escape|only %25, %2B and %2C stand for % and + and , (weir quote escapes for you)`},
		{"tcp:fe80::1%eth0:80", "           ^^^", `bad escape|only %25, %2B and %2C stand for % and + and , (weir quote escapes for you)`},
		// Roles: a layer that needs a base that connects.
		{"8080+proxy-out:v1", "     ^^^^^^^^^", `layer "proxy-out" cannot be used on tcp-listen|it goes on an endpoint that connects`},
	} {
		e, err := later().Parse(c.in)
		var ae *Error
		if !errors.As(err, &ae) {
			t.Errorf("%q: got %v, %v, want an *Error", c.in, e, err)
			continue
		}
		want := strings.ReplaceAll(c.want, "% and + and ,", "% + and ,")
		if got := ae.Problem + "|" + ae.Hint; got != want {
			t.Errorf("%q:\n got %s\nwant %s", c.in, got, want)
		}
		lines := strings.Split(ae.Error(), "\n")
		if len(lines) != 3 {
			t.Errorf("%q: %d lines: %s", c.in, len(lines), ae)
			continue
		}
		carets := lines[2][:strings.LastIndex(lines[2], "^")+1]
		if carets != "  "+c.carets {
			t.Errorf("%q: the carets stand wrong:\n%s", c.in, ae)
		}
	}
}

// TestErrorAsShown: an error reads exactly as documented.
func TestErrorAsShown(t *testing.T) {
	_, err := later().Parse("localhost:3000+tsl")
	const want = `weir: unknown layer "tsl"
  localhost:3000+tsl
                 ^^^ did you mean "tls"?        (weir help layers)`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// TestErrorIsOneSafeLine: unprintable characters are shown escaped, with the
// carets below them.
func TestErrorIsOneSafeLine(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"é:80\x1b[31m", `  é:80\x1b[31m` + "\n" + `    ^^^^^^^^^^`},
		{"a:80\n,retyr=1s", `  a:80\n,retyr=1s` + "\n" + `    ^^^^`},
		{"/x\xff,frob", `  /x\xff,frob` + "\n" + `         ^^^^`},
	} {
		_, err := Default().Parse(c.in)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Count(err.Error(), "\n") != 2 {
			t.Errorf("%q: got\n%v\nwant the lines\n%s", c.in, err, c.want)
		}
	}
}

// TestSecretStaysOut is rule 8: a secret on the command line is an error, which
// does not repeat the secret.
func TestSecretStaysOut(t *testing.T) {
	_, err := later().Parse("p:80+socks5:db:80,password=hunter2")
	if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "password=***") {
		t.Errorf("got\n%v", err)
	}
	for _, bad := range []string{"env:", "file:", "Env:X"} {
		if _, err := later().Parse("p:80+socks5,password=" + bad); err == nil {
			t.Errorf("%s is taken for a secret", bad)
		}
	}
}

// TestPositions: every token knows where it was written.
func TestPositions(t *testing.T) {
	const in = "/a%2Cb,retry=30s+tls,allow-cn=x%2By"
	e, err := later().Parse(in)
	if err != nil {
		t.Fatal(err)
	}
	var tokens []Token
	for _, p := range append([]*Part{e.Base}, e.Layers...) {
		if !p.Short {
			tokens = append(tokens, p.Name)
		}
		if p.Arg != nil {
			tokens = append(tokens, *p.Arg)
		}
		for _, o := range p.Options {
			tokens = append(tokens, o.Key, *o.Value)
		}
	}
	var got []string
	for _, tok := range tokens {
		if in[tok.Pos:tok.End] != tok.Raw {
			t.Errorf("%q stands at %d..%d, where %q is", tok.Raw, tok.Pos, tok.End, in[tok.Pos:tok.End])
		}
		got = append(got, fmt.Sprintf("%s=%s", tok.Raw, tok.Text))
	}
	const want = "/a%2Cb=/a,b retry=retry 30s=30s tls=tls allow-cn=allow-cn x%2By=x+y"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got %s, want %s", s, want)
	}
}

// TestBareWords: a number alone is the speed of a serial line, and 8n1 its format, at any
// place among its options.
func TestBareWords(t *testing.T) {
	for _, in := range []string{"serial:/dev/ttyS0,115200,7e2", "serial:/dev/ttyS0,7E2,shared,115200", "serial:/dev/ttyS0,format=7e2,speed=115200"} {
		e, err := Default().Parse(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if c := serialConfig(e.Base); c.String() != "115200 7e2" || c.Shared != strings.Contains(in, "shared") {
			t.Errorf("%s: %+v", in, c)
		}
		if e.Base.Int("speed") != 115200 || !strings.EqualFold(e.Base.Value("format"), "7e2") {
			t.Errorf("%s: speed %q, format %q", in, e.Base.Value("speed"), e.Base.Value("format"))
		}
	}
	e, err := Default().Parse("serial:/dev/ttyS0,flow=xonxoff,dtr=on,rts=off,carrier,hangup,reply=2s,retry=1h")
	if err != nil {
		t.Fatal(err)
	}
	want := serial.Config{
		Flow: serial.Software, Raise: serial.DTR, Drop: serial.RTS, Carrier: true, HangUp: true,
		Reply: 2 * time.Second, Absence: time.Hour,
	}
	if c := serialConfig(e.Base); c.Flow != want.Flow || c.Raise != want.Raise || c.Drop != want.Drop ||
		!c.Carrier || !c.HangUp || c.Reply != want.Reply || c.Absence != want.Absence {
		t.Errorf("%+v, want %+v", c, want)
	}
}

func TestNearest(t *testing.T) {
	words := []string{"tcp", "tcp-listen", "unix", "unix-listen", "stdio", "fd", "pipe"}
	for _, c := range []struct{ in, want string }{
		{"tpc", "tcp"},
		{"tcp-listne", "tcp-listen"},
		{"tcplisten", "tcp-listen"},
		{"unx", "unix"},
		{"stdoi", "stdio"},
		{"TCP", "tcp"},
		{"pip", "pipe"},
		{"stdi", "stdio"},
		{"example", ""},
		{"x", ""},
		{strings.Repeat("tcp", 40), ""},
	} {
		if got := Nearest(c.in, words); got != c.want {
			t.Errorf("%s: got %q, want %q", c.in, got, c.want)
		}
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"tsl", "tls", 1}, {"kitten", "sitting", 3}, {"abcd", "badc", 2}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance of %q and %q: got %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, ex := range examples {
		for _, arg := range ex.argv {
			f.Add(arg)
		}
	}
	for _, s := range []string{"tcp:fe80::1%25eth0:80", "a:80,retry=", "/a%2", "::", "+", ",", "%", "fd:3,out=4", "\xff:1"} {
		f.Add(s)
	}
	table := later()
	f.Fuzz(func(t *testing.T, s string) {
		e, err := table.Parse(s)
		if err != nil {
			var ae *Error
			if !errors.As(err, &ae) {
				t.Fatalf("%q: %T", s, err)
			}
			if ae.Pos < 0 || ae.End < ae.Pos || ae.Pos > len(s) {
				t.Fatalf("%q: the error points at %d..%d", s, ae.Pos, ae.End)
			}
			if strings.Count(ae.Error(), "\n") != 2 {
				t.Fatalf("%q: not three lines:\n%s", s, ae)
			}
			return
		}
		text := e.String()
		again, err := table.Parse(text)
		if err != nil {
			t.Fatalf("%q: written as %q, which is an error: %v", s, text, err)
		}
		if brief(again) != brief(e) || again.String() != text {
			t.Fatalf("%q: %s, but written as %q: %s", s, brief(e), text, brief(again))
		}
	})
}

func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "a", "%+,", "%25", "~/x", "a=b:c", "\xff"} {
		f.Add(s)
	}
	table := later()
	f.Fuzz(func(t *testing.T, s string) {
		q := Quote(s)
		if text, _, ok := unescape(q); !ok || text != s {
			t.Fatalf("%q is quoted %q, which reads %q, %v", s, q, text, ok)
		}
		if s == "" || strings.ContainsRune(s, 0) {
			return
		}
		e, err := table.Parse("a:80+tls,allow-cn=" + q)
		if err != nil {
			t.Fatal(err)
		}
		if got := e.Layers[0].Value("allow-cn"); got != s {
			t.Fatalf("%q came through as %q", s, got)
		}
	})
}

// TestPasswordInURL: the user information in a URL is not shown, and the hint
// says where it belongs.
func TestPasswordInURL(t *testing.T) {
	for _, text := range []string{"socks5://me:hunter2@proxy:9", "https://me:hunter2@h/x", "wss://hunter2@h"} {
		_, err := Default().Parse(text)
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), ",user=NAME,password=env:NAME") {
			t.Errorf("%v", err)
		}
	}
	_, err := Default().Parse("exec:cat")
	if err == nil || !strings.Contains(err.Error(), "write exec -- cat") {
		t.Errorf("%v", err)
	}
}
