//go:build weirbug

package weir

// planted is the bug that is in force. Bugs that others had (RELIABILITY's list,
// by number) are put back by name, so that the suite is seen to find them. It
// exists in builds with the tag weirbug only, for one test at a time.
var planted string

// PlantBug puts one of PlantedBugs back, or takes it out with "".
func PlantBug(name string) { planted = name }

// PlantedBugs are the names that PlantBug knows.
func PlantedBugs() []string {
	return []string{
		"accept-spins",         // 1: a shortage on accept is tried again at once
		"accept-stops",         // 2, the other way: one bad connection ends accepting
		"lost-in-callback",     // 7: the receive loop goes on after Abort in the callback
		"close-drops-backlog",  // gnet, nbio: Close does not wait for the buffer
		"end-drops-tail",       // 15, nbio: what is withheld when the end comes is dropped
		"half-close-ends",      // gnet, nbio, netpoll, evio: the reply after a half-close
		"end-overtakes",        // the end of writing is sent before what was written
		"close-after-half",     // 18: Close after WriteEOF does nothing
		"lost-twice",           // ConnectionLost for each way of finding out
		"resume-twice",         // ResumeWriting without a pause before it
		"pause-ignored",        // PauseReading in DataReceived holds only from the next read
		"tail-forgets",         // a kept tail loses its first byte when it grows
		"dial-closes-twice",    // 14: a cancelled connect's descriptor is closed once more
		"writer-never-pauses",  // the high mark is not looked at
		"short-write-is-whole", // 22: a short count is taken for all
	}
}
