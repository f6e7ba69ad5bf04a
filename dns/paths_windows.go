package dns

// There is no resolv.conf: servers have to be named, or System used.
const (
	configPath = ""
	hostsPath  = `C:\Windows\System32\drivers\etc\hosts`
)
