//go:build !linux

package main

import "os/exec"

// leash has no means here.
func leash(*exec.Cmd) {}
