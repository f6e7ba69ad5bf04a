//go:build !unix

package main

import (
	"errors"
	"os"
)

var windowChange os.Signal // there is none here

func dup(int) (int, error) { return -1, errors.ErrUnsupported }

func closeDup(int) {}

var stopSignal, continueSignal os.Signal

func stopSelf() {}
