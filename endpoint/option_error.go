package endpoint

import (
	"errors"
	"io/fs"

	"github.com/weir-io/weir/certs"
)

// OptionError is the cause of a LayerError when the value of one option cannot
// be used: for example, a file that does not exist, or does not contain what it
// should.
type OptionError struct {
	Option string // its name
	Value  string // as it was written
	File   string // the file that the cause is about, perhaps one in the directory Value; "" if it is about none
	Err    error
}

func (e *OptionError) Error() string { return e.Option + "=" + e.Value + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *OptionError) Unwrap() error { return e.Err }

func optionError(p *Part, option string, err error) *OptionError {
	return &OptionError{Option: option, Value: p.Value(option), File: fileOf(err), Err: err}
}

// fileOf returns the path of the file that an error is about, or "".
func fileOf(err error) string {
	var (
		path *fs.PathError
		cert *certs.FileError
	)
	switch {
	case errors.As(err, &path):
		return path.Path
	case errors.As(err, &cert):
		return cert.File
	}
	return ""
}
