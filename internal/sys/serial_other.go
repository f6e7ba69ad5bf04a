//go:build !linux

package sys

import "errors"

// Stubs for systems on which no serial line has been tried.

// SerialState is how a line was set before.
type SerialState struct{}

// SameDevice reports false.
func (SerialState) SameDevice(SerialState) bool { return false }

// OpenSerial fails.
func OpenSerial(string, *SerialSettings) (fd int, was SerialState, err error) {
	return -1, was, errors.ErrUnsupported
}

// SetSerial fails.
func SetSerial(int, *SerialSettings) error { return errors.ErrUnsupported }

// Serial fails.
func Serial(int) (SerialSettings, error) { return SerialSettings{}, errors.ErrUnsupported }

// SetSerialLine fails.
func SetSerialLine(int, int, bool) error { return errors.ErrUnsupported }

// SerialLines fails.
func SerialLines(int) (int, error) { return 0, errors.ErrUnsupported }

// SerialBreak fails.
func SerialBreak(int, bool) error { return errors.ErrUnsupported }

// SerialUnsent fails.
func SerialUnsent(int) (int, error) { return 0, errors.ErrUnsupported }

// CloseSerial has no effect.
func CloseSerial(int, SerialEnd) (cut bool) { return false }
