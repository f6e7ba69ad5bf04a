package dns

// configPath is empty: there is no resolv.conf, and servers have to be named, or System
// used.
const configPath = ""
