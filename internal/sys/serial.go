package sys

import "time"

// SerialSettings say how a serial line works.
type SerialSettings struct {
	Speed     int  // bits a second in both directions
	Bits      int  // of a character: 5 to 8
	Stop      int  // stop bits: 1 or 2
	Parity    byte // 'n', 'e', 'o', 'm' or 's'
	RTSCTS    bool // flow control by the lines RTS and CTS
	XONXOFF   bool // flow control by the characters XON and XOFF
	Carrier   bool // the line hangs up when carrier detect is dropped
	HangUp    bool // DTR and RTS are dropped when the last one closes the line
	DTR, RTS  int  // above 0 to raise, below 0 to drop, 0 to leave
	Exclusive bool // no one else may have it open
}

// SerialEnd says how a line is closed.
type SerialEnd struct {
	Drop      bool          // what is unsent is dropped; if not, it is waited for
	Wait      time.Duration // how long it is waited for
	Break     bool          // a break has begun and not ended
	Exclusive bool          // others were kept out
	Was       SerialState   // how to set the line; zero: it stays as it is set
}

// The lines of a modem, as SerialLines has them.
const (
	LineDTR = 1 << iota
	LineRTS
	LineCTS
	LineDSR
	LineDCD
	LineRI
)
