package task

import "github.com/weir-io/weir/internal/inner"

// SetInner puts l in the place of the inner side of the root's loop.
func (sc *Scope) SetInner(l inner.Loop) { sc.w.loop = l }
