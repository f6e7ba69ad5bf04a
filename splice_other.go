//go:build !linux

package weir

// newKernelPipe returns nil: only Linux splices.
func newKernelPipe() *kernelPipe { return nil }
