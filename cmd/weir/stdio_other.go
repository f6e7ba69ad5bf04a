//go:build !unix

package main

import "os"

func takeStdio(in, out *os.File) (r, w int, err error) { return int(in.Fd()), int(out.Fd()), nil }
