//go:build !windows

package weir

const hostsPath = "/etc/hosts"
