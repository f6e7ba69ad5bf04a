//go:build !unix

package main

import "os"

// shows is the signal that asks what is going on; there is none here.
var shows os.Signal
