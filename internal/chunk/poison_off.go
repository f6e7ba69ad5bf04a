//go:build !weirpoison

package chunk

// poison does nothing. Under the build tag weirpoison it overwrites released memory, so
// that a use after release shows.
func poison([]byte) {}
