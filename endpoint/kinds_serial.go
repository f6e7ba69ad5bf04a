package endpoint

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/serial"
)

// serialReply is reply='s.
const serialReply = time.Second

// formatType is the type of the form of a character.
func formatType() *Type {
	return &Type{Name: "format", Doc: "bits 5 to 8, parity n, e, o, m or s, stop bits 1 or 2: 8n1, 7e1", check: func(s string) *Fault {
		if _, _, _, err := serial.ParseFormat(s); err != nil {
			return &Fault{Problem: fmt.Sprintf("bad format %q", s), Hint: "bits 5 to 8, parity n, e, o, m (mark) or s (space), stop bits 1 or 2: 8n1"}
		}
		return nil
	}}
}

func serialKind() *Kind {
	state := Choice("on", "off")
	return &Kind{
		Name:    "serial",
		Role:    Dial,
		Summary: "a serial line",
		Doc: `A number alone is the speed, and a word like 8n1 is the format of a character; the defaults
are 9600 and 8n1. No one else can open the line meanwhile (TIOCEXCL and a lock). weir says
which settings the device does not keep. A serial line has no end: when the other side has ended, and
all is sent, the connection ends once the device has been silent for reply=. With retry= a
device that is gone, or not there yet, is waited for, and the connection goes on when it is
back: what was on its way then is lost. Linux only.`,
		Arg: Arg{Name: "path", Type: Path},
		Options: []OptionDoc{
			{Name: "speed", Type: Number(1, math.MaxInt32), Doc: "bits a second, any that the device can do; 115200 alone will do", Bare: digits},
			{Name: "format", Type: formatType(), Doc: "bits, parity and stop bits; 8n1 alone will do", Bare: looksLikeFormat},
			{Name: "flow", Type: Choice("none", "rtscts", "xonxoff"), Doc: "flow control: by the lines RTS and CTS, or by characters; none without it"},
			{Name: "dtr", Type: state, Doc: "raise or drop the line DTR"},
			{Name: "rts", Type: state, Doc: "raise or drop the line RTS"},
			{Name: "lines", Type: Flag, Doc: "say which modem lines are raised, and when that changes"},
			{Name: "carrier", Type: Flag, Doc: "end when the device drops carrier detect, as a modem does, even with retry"},
			{Name: "hangup", Type: Flag, Doc: "drop DTR and RTS at the end"},
			{Name: "break", Type: Period(time.Minute), Doc: "begin with a break of this length"},
			{Name: "close-wait", Type: Duration, Doc: "at the end, drop what is unsent once the device has stopped the line for this long; 10s without it"},
			{Name: "shared", Type: Flag, Doc: "let others open the line too"},
			{Name: "reply", Type: Duration, Doc: "the reply is over when the device has been silent for this long; 1s without it"},
			{Name: "retry", Type: Duration, Doc: "wait for a device that is not there for so long, at first and later"},
		},
		Example: "serial:/dev/ttyUSB0,115200,8n1",
		Check: func(p *Part) *Fault {
			c := serialConfig(p)
			if o := p.Option("rts"); o != nil && c.Flow == serial.Hardware {
				return &Fault{Token: &o.Key, Problem: "with flow=rtscts the system moves RTS"}
			}
			return nil
		},
		Describe: func(p *Part) string {
			d := "opens serial line " + p.ArgText() + ", " + serialConfig(p).String()
			if p.Has("retry") {
				d += ", waiting for a device that is gone for " + p.Value("retry")
			}
			return d
		},
		Connect: connectSerial,
	}
}

func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// looksLikeFormat reports whether a word is meant as a format, be it a bad one.
func looksLikeFormat(s string) bool {
	return len(s) == 3 && digits(s[:1]) && !digits(s[1:2]) && digits(s[2:])
}

func serialConfig(p *Part) serial.Config {
	c := serial.Config{
		Speed: int(p.Int("speed")), Carrier: p.Has("carrier"), HangUp: p.Has("hangup"), Shared: p.Has("shared"),
		Absence: p.Duration("retry"), Reply: serialReply, Break: p.Duration("break"), CloseWait: p.Duration("close-wait"),
	}
	if p.Has("format") {
		c.Bits, c.Parity, c.StopBits, _ = serial.ParseFormat(p.Value("format")) // Parse has checked it
	}
	switch p.Value("flow") {
	case "rtscts":
		c.Flow = serial.Hardware
	case "xonxoff":
		c.Flow = serial.Software
	}
	for _, l := range [...]struct {
		name string
		line serial.Line
	}{{"dtr", serial.DTR}, {"rts", serial.RTS}} {
		switch p.Value(l.name) {
		case "on":
			c.Raise |= l.line
		case "off":
			c.Drop |= l.line
		}
	}
	if p.Has("reply") {
		c.Reply = p.Duration("reply")
	}
	return c
}

// connectSerial opens a line on a goroutine of its own: a driver may block in that.
func connectSerial(env *Env, p *Part, _ string, proto weir.Protocol) (stop func()) {
	c := serialConfig(p)
	name := p.ArgText()
	c.Changed = func(gone error) {
		if gone != nil {
			env.note(fmt.Sprintf("%s is gone; waiting %v for it", name, c.Absence))
		} else {
			env.note(name + " is back")
		}
	}
	if p.Has("lines") {
		c.LinesChanged = func(raised serial.Line) {
			lines := raised.String()
			if lines == "" {
				lines = "none"
			}
			env.note(name + ": lines raised: " + lines)
		}
	}
	opening := serial.Start(future.On(env.Loop), env.Path(name), c, func(weir.Transport) weir.Protocol { return proto })
	stopped := false
	opening.OnDone(func(port *serial.Port, err error) {
		switch {
		case stopped:
		case err != nil:
			env.Loop.TellConnectFailed(proto, &weir.ConnectError{Network: "serial", Address: name, Stage: weir.StageSocket, Err: err})
		default:
			noteKept(env, p, port, c)
		}
	})
	return func() {
		stopped = true
		opening.Cancel()
	}
}

// noteKept says what of its settings a device does not keep.
func noteKept(env *Env, p *Part, port *serial.Port, c serial.Config) {
	name := p.ArgText()
	if _, err := port.Lines(); p.Has("lines") && err != nil && !errors.Is(err, serial.ErrAway) {
		env.note(name + " has no modem lines")
	}
	if kept, err := port.Kept(); err == nil && kept.String() != c.String() {
		env.note(fmt.Sprintf("%s is set to %v: it does not keep %v", name, kept, c))
	}
}
