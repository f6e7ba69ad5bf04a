package proxy

import (
	"crypto/sha256"
	"crypto/subtle"
)

// Users holds the names and passwords that a proxy server knows. It does not
// change, and any goroutine may use it.
type Users struct{ all [][2][sha256.Size]byte }

// NewUsers makes Users from passwords by name. A user without a name or with an
// empty password never matches: an empty password keeps nothing secret, and RFC
// 1929 cannot express it.
func NewUsers(passwords map[string]string) *Users {
	u := &Users{}
	for name, password := range passwords { // any order: all are compared
		if name != "" && password != "" {
			u.all = append(u.all, [2][sha256.Size]byte{sha256.Sum256([]byte(name)), sha256.Sum256([]byte(password))})
		}
	}
	return u
}

// Check reports whether a user has that password. The time it takes does not
// reveal which of the two was wrong, nor where.
func (u *Users) Check(name, password string) bool {
	n, p := sha256.Sum256([]byte(name)), sha256.Sum256([]byte(password))
	found := 0
	for i := range u.all {
		found |= subtle.ConstantTimeCompare(n[:], u.all[i][0][:]) & subtle.ConstantTimeCompare(p[:], u.all[i][1][:])
	}
	return found == 1
}
