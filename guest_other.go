//go:build !unix

package weir

import "time"

type quitter struct{}

func newQuitter() (*quitter, func(), error)   { return nil, nil, ErrNoPollFD }
func (*quitter) wait(int, time.Duration) bool { return false }
func (*quitter) close()                       {}
