//go:build !weirpoison

package chunk

// poison does nothing. Under the build tag weirpoison it overwrites what is
// released, so that a use after release is seen.
func poison([]byte) {}
