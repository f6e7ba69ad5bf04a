package serial

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/weir-io/weir/internal/sys"
)

// Parity is a bit that is sent with each character.
type Parity uint8

// The parities.
const (
	NoParity Parity = iota
	Even
	Odd
	Mark  // it is always 1
	Space // it is always 0
)

// letters are the parities in short, as in 8n1.
const letters = "neoms"

// Flow is how the receiver stops the sender.
type Flow uint8

// The ways.
const (
	NoFlow   Flow = iota
	Hardware      // the lines RTS and CTS
	Software      // the bytes XON (17) and XOFF (19), which then cannot be data
)

// Line is a set of the lines beside those that carry data.
type Line uint8

// The lines. The first two are ours, the others the device's.
const (
	DTR Line = 1 << iota // data terminal ready
	RTS                  // request to send
	CTS                  // clear to send
	DSR                  // data set ready
	DCD                  // carrier detect
	RI                   // ring
)

func (l Line) String() string {
	var names []string
	for i, name := range [...]string{"DTR", "RTS", "CTS", "DSR", "DCD", "RI"} {
		if l&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}

// Config says how a line is set. The zero Config is 9600 bits a second, 8n1, without flow
// control.
type Config struct {
	Speed    int // bits a second, any that the device can do; 0: 9600
	Bits     int // of a character: 5 to 8; 0: 8
	Parity   Parity
	StopBits int // 1 or 2; 0: 1
	Flow     Flow

	// Raise and Drop are what DTR and RTS are set to; others stay as the system sets them
	// when the line is opened: raised.
	Raise, Drop Line
	// Carrier ends the connection when the device drops carrier detect, as a modem does,
	// with a *GoneError; Absence does not apply.
	Carrier bool
	// HangUp drops DTR and RTS when the line is closed.
	HangUp bool
	// Shared leaves the line to others too. Without it no one else can open it, except
	// root, and not even root if it asks for the lock (flock) as weir does.
	Shared bool

	// Absence is how long a device may be gone, once it was open: the connection then
	// waits for it to come back, sets it again and goes on. What had been written and not
	// sent is lost. 0: the connection ends at once.
	Absence time.Duration
	// Changed is called, on the loop's goroutine, when a device with Absence is gone, with
	// the reason, and with nil when it is back. nil: no one is told.
	Changed func(gone error)
	// LinesChanged is called, on the loop's goroutine, with the lines that are raised, first
	// when the device is opened, before ConnectionMade and again each time, and when they
	// have changed: those that last for 50 ms and more are seen. A goroutine looks at them. A
	// device without lines, as a pseudo-terminal, is not looked at. nil: no one is told.
	LinesChanged func(raised Line)
	// Break begins with a break of this length, at each opening: see Port.Break. 0: none.
	Break time.Duration
	// CloseWait is how long a line that is being closed may send nothing, because the other
	// end stops it, before what is left is dropped. 0: 10 s.
	CloseWait time.Duration
	// Reply is how long a device must be silent, once our end of writing was sent and
	// nothing is unsent, to have ended too. 0: the end of writing cannot be sent, and
	// CanWriteEOF is false.
	Reply time.Duration

	// Tests have their own of these.
	open     func(path string, s *sys.SerialSettings) (fd int, was sys.SerialState, err error) // nil: sys.OpenSerial
	close    func(fd int, e sys.SerialEnd) bool                                                // nil: sys.CloseSerial
	setBreak func(fd int, on bool) error                                                       // nil: sys.SerialBreak
	lines    func(fd int) (int, error)                                                         // nil: sys.SerialLines
}

// ParseFormat reads the bits, parity and stop bits of a character in their usual short
// form: 8n1, 7e1, 8o2; m is mark and s space.
func ParseFormat(s string) (bits int, p Parity, stop int, err error) {
	if len(s) == 3 && s[0] >= '5' && s[0] <= '8' && (s[2] == '1' || s[2] == '2') {
		if i := strings.IndexByte(letters, s[1]|0x20); i >= 0 {
			return int(s[0] - '0'), Parity(i), int(s[2] - '0'), nil
		}
	}
	return 0, 0, 0, fmt.Errorf("serial: %q is not like 8n1: bits 5 to 8, parity n, e, o, m or s, stop bits 1 or 2", s)
}

// withDefaults is c without zeros, or why it is wrong.
func (c Config) withDefaults() (Config, error) {
	if c.Speed == 0 {
		c.Speed = 9600
	}
	if c.Bits == 0 {
		c.Bits = 8
	}
	if c.StopBits == 0 {
		c.StopBits = 1
	}
	if c.CloseWait == 0 {
		c.CloseWait = closeWait
	}
	if c.open == nil {
		c.open = sys.OpenSerial
	}
	if c.close == nil {
		c.close = sys.CloseSerial
	}
	if c.setBreak == nil {
		c.setBreak = sys.SerialBreak
	}
	if c.lines == nil {
		c.lines = sys.SerialLines
	}
	switch {
	case c.Speed < 1 || c.Speed > math.MaxInt32:
		return c, errors.New("serial: bad speed " + strconv.Itoa(c.Speed))
	case c.Bits < 5 || c.Bits > 8:
		return c, errors.New("serial: a character has 5 to 8 bits, not " + strconv.Itoa(c.Bits))
	case c.StopBits < 1 || c.StopBits > 2:
		return c, errors.New("serial: there are 1 or 2 stop bits, not " + strconv.Itoa(c.StopBits))
	case c.Parity > Space:
		return c, errors.New("serial: bad parity")
	case c.Flow > Software:
		return c, errors.New("serial: bad flow control")
	case (c.Raise|c.Drop)&^(DTR|RTS) != 0:
		return c, errors.New("serial: only DTR and RTS can be set")
	case c.Raise&c.Drop != 0:
		return c, errors.New("serial: a line cannot be both raised and dropped")
	case c.Absence < 0 || c.Reply < 0 || c.Break < 0 || c.CloseWait < 0:
		return c, errors.New("serial: a time cannot be negative")
	}
	return c, nil
}

func (c *Config) settings() *sys.SerialSettings {
	want := func(l Line) int {
		switch {
		case c.Raise&l != 0:
			return 1
		case c.Drop&l != 0:
			return -1
		}
		return 0
	}
	return &sys.SerialSettings{
		Speed: c.Speed, Bits: c.Bits, Stop: c.StopBits, Parity: letters[c.Parity],
		RTSCTS: c.Flow == Hardware, XONXOFF: c.Flow == Software,
		Carrier: c.Carrier, HangUp: c.HangUp, DTR: want(DTR), RTS: want(RTS), Exclusive: !c.Shared,
	}
}

// String is the speed and format, and the flow control if there is any.
func (c Config) String() string {
	d, err := c.withDefaults()
	if err != nil {
		return err.Error()
	}
	s := fmt.Sprintf("%d %d%c%d", d.Speed, d.Bits, letters[d.Parity], d.StopBits)
	return s + [...]string{"", " rtscts", " xonxoff"}[d.Flow]
}
