package hosts

// Path is where the system has its hosts file.
const Path = `C:\Windows\System32\Drivers\etc\hosts`
