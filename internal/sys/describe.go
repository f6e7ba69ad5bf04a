package sys

// Description is what the system reports about a descriptor of the process.
type Description struct {
	Read, Write bool // the directions that it was opened for
	Socket      bool
	Local       bool // a UNIX socket
	SCTP        bool
	Vsock       bool
	RFCOMM      bool
	Listening   bool // a socket that accepts
	Terminal    bool
	dev, ino    uint64 // of a socket
}

// Same reports whether two descriptors refer to one socket.
func (d *Description) Same(o *Description) bool {
	return d.Socket && o.Socket && d.ino != 0 && d.dev == o.dev && d.ino == o.ino
}
