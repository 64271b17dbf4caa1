package dcosconfig

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// check says what is wrong with a value, in DC/OS's words where it had some;
// "" is fine.
type check func(v value) string

// saying replaces what a check says; %s is the value.
func (c check) saying(format string) check {
	return func(v value) string {
		if c(v) == "" {
			return ""
		}
		return fmt.Sprintf(format, v.text)
	}
}

func oneOf(choices ...string) check {
	return func(v value) string {
		if slices.Contains(choices, v.text) {
			return ""
		}
		var quoted []string
		for _, c := range choices {
			quoted = append(quoted, fmt.Sprintf("%q", c))
		}
		return fmt.Sprintf("Must be one of %s. Got %q.", strings.Join(quoted, ", "), v.text)
	}
}

func boolean(v value) string { return oneOf("true", "false")(v) }

func number(least, most int) check {
	return func(v value) string {
		n, err := strconv.Atoi(v.text)
		if err != nil {
			return fmt.Sprintf("%q is not a whole number.", v.text)
		}
		if n < least || n > most {
			return fmt.Sprintf("Must be between %d and %d inclusive, is %d.", least, most, n)
		}
		return ""
	}
}

func ipv4(v value) string {
	if a, err := netip.ParseAddr(v.text); err != nil || !a.Is4() {
		return fmt.Sprintf("Invalid IPv4 address: %s.", v.text)
	}
	return ""
}

func ipv4List(v value) string {
	list, err := v.list()
	if err != nil {
		return "Must be a list of IPv4 addresses: " + err.Error()
	}
	var bad, twice []string
	for i, s := range list {
		if a, err := netip.ParseAddr(s); err != nil || !a.Is4() {
			bad = append(bad, s)
		}
		if slices.Contains(list[:i], s) && !slices.Contains(twice, s) {
			twice = append(twice, s)
		}
	}
	if len(bad) > 0 {
		return "Invalid IPv4 addresses in list: " + strings.Join(bad, ", ")
	}
	if len(twice) > 0 {
		return "List cannot contain duplicates: " + strings.Join(twice, ", ")
	}
	return ""
}

// spartan are the addresses of DC/OS's own DNS.
var spartan = []string{"198.51.100.1", "198.51.100.2", "198.51.100.3"}

func resolverList(v value) string {
	list, err := v.list()
	if err != nil {
		return "Must be a list of IPv4 addresses, with a port if it is not 53: " + err.Error()
	}
	var own []string
	for i, s := range list {
		ap, err := parseResolver(s)
		if err != nil {
			return fmt.Sprintf("Invalid resolver %q: must be an IPv4 address, with a port if it is not 53.", s)
		}
		if slices.Contains(spartan, ap.Addr().String()) {
			own = append(own, s)
		}
		if slices.Contains(list[:i], s) {
			return "List cannot contain duplicates: " + s
		}
	}
	if len(own) > 0 {
		return "Spartan addresses found in `resolvers`: " + strings.Join(own, ", ") + ". They are the cluster's own DNS."
	}
	return ""
}

func parseResolver(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
		return netip.AddrPortFrom(a, 53), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err == nil && !ap.Addr().Is4() {
		err = fmt.Errorf("%s is not an IPv4 address", ap.Addr())
	}
	return ap, err
}

func bootstrapURL(v value) string {
	switch {
	case len(v.text) < 2:
		return "Should be a url (http://example.com/bar) or path to a local directory (file:///tmp/bar)."
	case strings.HasSuffix(v.text, "/"):
		return "Must not end in a '/'."
	}
	return ""
}

func dnsSearch(v value) string {
	switch {
	case strings.ContainsAny(v.text, "\n,"):
		return "Must not contain newlines or commas."
	case len(v.text) > 255:
		return "Must be less than 256 characters long."
	case len(strings.Fields(v.text)) > 6:
		return "Must contain no more than 6 domains."
	}
	return ""
}

var frameRE = regexp.MustCompile(`(?i)^(DENY|SAMEORIGIN|ALLOW-FROM[ \t].+)$`)

func frameOptions(v value) string {
	if !frameRE.MatchString(v.text) {
		return "X-Frame-Options must be set to one of DENY, SAMEORIGIN, ALLOW-FROM."
	}
	return ""
}

var durationRE = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?(ns|us|ms|secs|mins|hrs|days|weeks)$`)

func duration(v value) string {
	if !durationRE.MatchString(v.text) {
		return "Must be a number and one of ns, us, ms, secs, mins, hrs, days, weeks: 24hrs."
	}
	return ""
}

var shmRE = regexp.MustCompile(`^([0-9]+(B|KB|MB|GB|TB))?$`)

func shmSize(v value) string {
	if !shmRE.MatchString(v.text) {
		return "Must be a number and one of B, KB, MB, GB, TB: 64MB."
	}
	return ""
}

func overlay(v value) string {
	var o struct {
		Overlays []struct {
			Name    string `json:"name"`
			Subnet  string `json:"subnet"`
			Subnet6 string `json:"subnet6"`
		} `json:"overlays"`
	}
	if err := json.Unmarshal([]byte(v.text), &o); err != nil {
		return "Provided input was not valid JSON: " + err.Error()
	}
	if len(o.Overlays) == 0 {
		return "`Overlays` network configuration is empty, at least one overlay network is needed."
	}
	for _, n := range o.Overlays {
		if len(n.Name) > 13 {
			return "Overlay network name cannot exceed 13 characters: " + n.Name
		}
		if n.Subnet == "" && n.Subnet6 == "" {
			return "Missing `subnet` or `subnet6` in overlay network " + n.Name
		}
		for _, s := range []string{n.Subnet, n.Subnet6} {
			if _, err := netip.ParsePrefix(s); s != "" && err != nil {
				return fmt.Sprintf("Incorrect value for overlay subnet %s. Only CIDR is valid.", s)
			}
		}
	}
	return ""
}
