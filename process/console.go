package process

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/weir-io/weir"
)

// ConsoleConfig says what a Console is like.
type ConsoleConfig struct {
	// Link is where a symbolic link to the terminal is made, so that programs find it; "":
	// nowhere, and Console.Path is its only name. A link that leads to a terminal which is
	// gone is replaced.
	Link string
	// Mode is the permission bits of the terminal; 0 leaves them to the system, which lets
	// its owner read and write.
	Mode fs.FileMode
	// Size is the size of its window; zero: it stays unset.
	Size Size
	// Once ends the stream when the last program that had opened the terminal has closed it.
	// Without it programs may come and go.
	Once bool
}

// Console is a pseudo-terminal without a program: others open it, as they would a serial
// line. It passes every byte on as it is, without echo, until one of them sets it otherwise.
// Its methods belong to the loop's goroutine.
type Console struct {
	path, link string
	hold       int // its slave, kept open; -1 with Once, and after Release
}

// OpenConsole opens a terminal (Linux) and makes a transport of it, whose protocol f makes.
// It is to be called on the loop's goroutine; f and the protocol's ConnectionMade run before it
// returns. It makes a link, and blocks for as long as the file system does. The error is a
// *fs.PathError, what the system says, errors.ErrUnsupported, or weir.ErrClosed if f refused it.
//
// The transport has no WriteEOF. What was written and no program has read is lost when it is
// closed, a few KB at most, since programs that have it open then see a hang-up. Release is to
// be called when it is lost.
func OpenConsole(l *weir.Loop, c ConsoleConfig, f weir.Factory, opts ...weir.StreamOption) (*Console, error) {
	k := &Console{hold: -1}
	master, err := k.open(&c)
	if err != nil {
		return nil, err
	}
	if err := k.prepare(master, &c); err != nil {
		letGo(master)
		k.Release()
		return nil, err
	}
	if _, err := l.Attach(master, k.path, f, opts...); err != nil {
		if !errors.Is(err, weir.ErrClosed) { // else it was taken, and the factory refused
			letGo(master)
		}
		k.Release()
		return nil, err
	}
	return k, nil
}

// prepare gives an open terminal its permissions and its link.
func (k *Console) prepare(master int, c *ConsoleConfig) error {
	if _, err := Raw(master); err != nil { // its slave's settings are the terminal's
		return err
	}
	if c.Size != (Size{}) {
		if err := SetWindowSize(master, c.Size); err != nil {
			return err
		}
	}
	if c.Mode != 0 {
		if err := os.Chmod(k.path, c.Mode.Perm()); err != nil {
			return err
		}
	}
	if c.Link == "" {
		return nil
	}
	if err := replaceDangling(c.Link); err != nil {
		return err
	}
	if err := os.Symlink(k.path, c.Link); err != nil {
		return err
	}
	k.link = c.Link
	return nil
}

// replaceDangling removes a link to a terminal that is gone.
func replaceDangling(link string) error {
	to, err := os.Readlink(link)
	if err != nil || !strings.HasPrefix(to, terminalsDir) {
		return nil //nolint:nilerror // making the link says what is there
	}
	if _, err := os.Stat(to); errors.Is(err, fs.ErrNotExist) {
		return os.Remove(link)
	}
	return nil
}

// Path is the terminal's own name, such as /dev/pts/3.
func (k *Console) Path() string { return k.path }

// Release removes the link, if it still leads to this terminal, and lets the terminal go: it is
// to be called once the transport is lost. Calling it again has no effect.
func (k *Console) Release() {
	if to, err := os.Readlink(k.link); k.link != "" && err == nil && to == k.path {
		_ = os.Remove(k.link) // someone else may have
	}
	letGo(k.hold)
	k.link, k.hold = "", -1
}
