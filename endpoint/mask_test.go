package endpoint

import (
	"strings"
	"testing"
)

// TestSecretsHidden: a secret given where it must not be, or under a name that
// is not an option, is not shown in the error.
func TestSecretsHidden(t *testing.T) {
	for _, in := range []string{
		"1080+socks5,passwd=HUNTER,user=x", "1080+socks5,password=HUNTER", "1080+socks5,password=a+HUNTER,y", "1080+socks5,password=a,HUNTER",
		"1080+socks5,PASSWORD=HUNTER", "1080+socks5,pasword=HUNTER,psw=HUNTER", "h:1+connect:t:2,proxy-auth=x:HUNTER", "8080+tls,cert=a,key-password=HUNTER",
		"h:1+tsl,password=HUNTER", "h:1+tsl,token=HUNTER", "socks5://u:HUNTER@h:1080", "socks5://u:a+HUNTER@h:1080", "http://u:a@b/HUNTER@h:1", "wss://u:HUNTER@h/p",
		"u:HUNTER@h:1080", "h:1080+socks5:u:HUNTER@h:90", "x:y@z:1+t,passwd=HUNTER", "h:1+socks5,proxy=socks5://u:HUNTER@h:1,x",
	} {
		_, err := Default().Parse(in)
		if err == nil {
			t.Errorf("%s: no error", in)
			continue
		}
		if text := err.Error(); strings.Contains(text, "HUNTER") || !strings.Contains(text, "***") {
			t.Errorf("%s:\n%s", in, text)
		}
	}
	// What is not a secret stays.
	for _, in := range []string{"h:1+tsl,password=env:P", "h:1+tsl,key=/some/file", "h:1+tsl,user=name", "a@b", "/run/a:b+tsl"} {
		if _, err := Default().Parse(in); err == nil || strings.Contains(err.Error(), "***") || !strings.Contains(err.Error(), in) {
			t.Errorf("%s:\n%v", in, err)
		}
	}
}
