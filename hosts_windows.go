package weir

const hostsPath = `C:\Windows\System32\Drivers\etc\hosts`
