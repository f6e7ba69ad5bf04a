package dns

// configPath is empty: there is no resolv.conf, so servers have to be named or
// System used.
const configPath = ""
