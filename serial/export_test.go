package serial

import "github.com/weir-io/weir/internal/sys"

// End is what a line is closed with.
type End = sys.SerialEnd

// CloseSerial closes a line.
var CloseSerial = sys.CloseSerial

// State is how a line was set, and Settings how it is to be set.
type (
	State    = sys.SerialState
	Settings = sys.SerialSettings
)

// OpenSerial opens a line.
var OpenSerial = sys.OpenSerial

// OpenBy has f open the line, on the goroutine that opens it.
func (c *Config) OpenBy(f func(path string, s *Settings) (int, State, error)) { c.open = f }

// CloseBy has f close the line, on the goroutine that closes it.
func (c *Config) CloseBy(f func(fd int, e End) (cut bool)) { c.close = f }

// BreakBy has f begin and end breaks.
func (c *Config) BreakBy(f func(fd int, on bool) error) { c.setBreak = f }

// LinesBy has f say which lines are raised, on a goroutine.
func (c *Config) LinesBy(f func(fd int) (int, error)) { c.lines = f }

// ErrStuck is the reason of a line that cannot be closed.
var ErrStuck = errStuck
