//go:build !windows

package dns

const (
	configPath = "/etc/resolv.conf"
	hostsPath  = "/etc/hosts"
)
