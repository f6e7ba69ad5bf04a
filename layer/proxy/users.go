package proxy

import (
	"crypto/sha256"
	"crypto/subtle"
)

// Users are the names and passwords that a proxy server knows. It does not
// change, and any goroutine may use it.
type Users struct{ all [][2][sha256.Size]byte }

// NewUsers makes Users of passwords by name. A user without a name or with an
// empty password never matches: nothing is no secret, and RFC 1929 has no way to
// say it.
func NewUsers(passwords map[string]string) *Users {
	u := &Users{}
	for name, password := range passwords { // any order: all are looked at
		if name != "" && password != "" {
			u.all = append(u.all, [2][sha256.Size]byte{sha256.Sum256([]byte(name)), sha256.Sum256([]byte(password))})
		}
	}
	return u
}

// Check reports whether a user has that password. How long it takes tells
// nothing about which of the two was wrong, nor where.
func (u *Users) Check(name, password string) bool {
	n, p := sha256.Sum256([]byte(name)), sha256.Sum256([]byte(password))
	found := 0
	for i := range u.all {
		found |= subtle.ConstantTimeCompare(n[:], u.all[i][0][:]) & subtle.ConstantTimeCompare(p[:], u.all[i][1][:])
	}
	return found == 1
}
