//go:build !unix

package file

const openQuick = 0
