package preflight

var (
	ParseFacts = parseFacts
	Script     = script
	Plan       = plan
	Ports      = ports
)
