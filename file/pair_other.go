//go:build !unix

package file

func isFileNumber(int) bool { return false }
