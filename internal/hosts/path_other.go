//go:build !windows

package hosts

// Path is where the system has its hosts file.
const Path = "/etc/hosts"
