package endpoint

import (
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"

	"github.com/weir-io/weir"
)

// PeerError is a client of a UNIX listener that runs as a user who may not connect, and
// in no group that may.
type PeerError struct{ UID uint32 }

func (e *PeerError) Error() string {
	who := strconv.FormatUint(uint64(e.UID), 10)
	return "user " + who + " may not connect here (allow-user=, allow-group=)"
}

// peers are those that may connect to a UNIX listener.
type peers struct{ users, groups map[uint32]bool }

// preparePeers finds the users of allow-user= and the groups of allow-group=.
func preparePeers(_ *Env, p *Part) error {
	if p.peers != nil || !p.Has("allow-user") && !p.Has("allow-group") {
		return nil
	}
	users, err := allowed(p, "allow-user", func(name string) (id string, err error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
	if err != nil {
		return err
	}
	groups, err := allowed(p, "allow-group", func(name string) (id string, err error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
	if err != nil {
		return err
	}
	p.peers = &peers{users, groups}
	return nil
}

// allowed finds the numbers of what an option names. A name that is a number is taken for
// one only if nothing has that name.
func allowed(p *Part, option string, look func(name string) (id string, err error)) (map[uint32]bool, error) {
	ids := map[uint32]bool{}
	for _, name := range p.Values(option) {
		text, err := look(name)
		if err != nil {
			text = name
		}
		id, notNumber := strconv.ParseUint(text, 10, 32)
		if notNumber != nil {
			return nil, fmt.Errorf("%s=%s: %w", option, name, err)
		}
		ids[uint32(id)] = true
	}
	return ids, nil
}

// onlyPeers makes a factory that refuses the clients that neither allow-user= nor
// allow-group= names.
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
	if p.peers.users[c.UID] {
		return nil
	}
	if len(p.peers.groups) > 0 {
		groups, err := peer.PeerGroups()
		if err != nil {
			return err
		}
		if slices.ContainsFunc(groups, func(id uint32) bool { return p.peers.groups[id] }) {
			return nil
		}
	}
	return &PeerError{UID: c.UID}
}
