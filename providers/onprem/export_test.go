package onprem

import "strings"

// Script is what runs on machines.
const Script = script

// Resolvers tells who answers for a machine and whom it asks.
func Resolvers(text string) (string, error) {
	s, err := parse(text)
	kind := "file"
	if s.resolved {
		kind = "resolved"
	}
	return kind + " " + strings.Join(s.resolvers, " "), err
}
