//go:build !unix

package weir

func describeFD(int) (d descriptor, err error) { return d, ErrNotDescriptors }
func socketPair() ([2]int, error)              { return [2]int{}, ErrNotDescriptors }
func pipe() ([2]int, error)                    { return [2]int{}, ErrNotDescriptors }
func closeFDs(...int)                          {}
