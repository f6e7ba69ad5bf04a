// Package file makes transports of files, without ever blocking the loop: a disk may
// take long for any of its bytes, and no system tells a loop when it will not.
//
//	loop                          executor's goroutines          disk
//	Open ────────────────────────▶ open, fstat ────────────────▶
//	DataReceived ◀──────────────── read 128 KiB ◀───────────────
//	Write ── at most 256 KiB ────▶ write ───────────────────────▶
//	ConnectionLost ◀────────────── close
//
// Each transport has at most one read and one write under way. The next piece is read
// while the protocol takes the one before, and a transport that is paused reads nothing.
//
// AttachPair does the same with files that are open already, such as standard input and
// output. Loop.Attach of package weir takes files too, for programs that have no executor;
// the loop then waits for the disk.
package file
