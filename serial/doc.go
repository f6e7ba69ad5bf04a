// Package serial makes transports of serial lines: a device's speed and framing, its
// modem lines and breaks, and what happens when it is unplugged.
//
//	your Protocol
//	     ▲ │
//	 Transport                one for as long as the Port is open
//	     ▲ │
//	    Port ── settings, lines, breaks
//	     ▲ │
//	 Transport of the device  one for each time that it is there
//
// A line has no end of its own. It ends when the device is gone for longer than
// Config.Absence, or when someone closes it; CanWriteEOF is false unless Config.Reply says
// what the end of writing means.
//
// Open may block in the driver; Start does that on a goroutine.
//
// Package serial works on Linux; elsewhere Open fails with errors.ErrUnsupported. It is not
// simulated.
package serial
