package sys

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

// The lines of a modem, as SerialLines has them.
const (
	LineDTR = 1 << iota
	LineRTS
	LineCTS
	LineDSR
	LineDCD
	LineRI
)
