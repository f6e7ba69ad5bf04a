//go:build weirpoison

package chunk

// poison overwrites memory that is being released, so that a use after release shows.
func poison(c []byte) {
	c = c[:cap(c)]
	for i := range c {
		c[i] = 0xdb
	}
}
