//go:build !windows

package dns

// configPath is where the system names its resolvers.
const configPath = "/etc/resolv.conf"
