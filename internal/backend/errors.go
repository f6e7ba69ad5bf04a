package backend

import (
	"errors"
	"fmt"
)

var (
	// ErrAgain ends an Op that had nothing to report: one with Now that would
	// have had to wait, or a Multi one that ended early.
	ErrAgain = errors.New("backend: would have to wait")
	// ErrCanceled ends an Op that was canceled before anything happened.
	ErrCanceled = errors.New("backend: canceled")
	// ErrUnsupported is returned for anything that Caps says is missing. errors.Is
	// finds errors.ErrUnsupported in it.
	ErrUnsupported = fmt.Errorf("backend: %w", errors.ErrUnsupported)
)
