package endpoint

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"

	"github.com/weir-io/weir"
)

// PeerError is a client of a UNIX listener that runs as a user who may not connect.
type PeerError struct{ UID uint32 }

func (e *PeerError) Error() string {
	who := strconv.FormatUint(uint64(e.UID), 10)
	return "user " + who + " may not connect here (allow-user=)"
}

// preparePeers finds the users of allow-user=.
func preparePeers(_ *Env, p *Part) error {
	names := p.Values("allow-user")
	if len(names) == 0 || p.peers != nil {
		return nil
	}
	peers := map[uint32]bool{}
	for _, name := range names {
		u, err := user.Lookup(name)
		text := name
		if err == nil {
			text = u.Uid
		}
		id, notNumber := strconv.ParseUint(text, 10, 32)
		if notNumber != nil {
			return fmt.Errorf("allow-user=%s: %w", name, err)
		}
		peers[uint32(id)] = true
	}
	p.peers = peers
	return nil
}

// onlyPeers makes a factory that refuses the clients that allow-user= does not name.
func onlyPeers(env *Env, p *Part, f weir.Factory) weir.Factory {
	if p.peers == nil {
		return f
	}
	return func(t weir.Transport) weir.Protocol {
		if err := checkPeer(p, t); err != nil {
			if env.Failed != nil {
				env.Failed(t, &weir.AttemptError{Addr: t.RemoteAddr(), Stage: weir.StageHandshake, Err: err})
			}
			return nil
		}
		return f(t)
	}
}

// checkPeer fails closed: where the system does not say who the peer is, no one may
// connect.
func checkPeer(p *Part, t weir.Transport) error {
	peer, ok := weir.As[weir.Peered](t)
	if !ok {
		return errors.New("the system does not say who the peer is")
	}
	c, err := peer.PeerCredentials()
	if err != nil {
		return err
	}
	if !p.peers[c.UID] {
		return &PeerError{UID: c.UID}
	}
	return nil
}
