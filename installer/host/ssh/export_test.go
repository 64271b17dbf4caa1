package ssh

// For tests of what is sent and read.
var (
	ChangeScript = changeScript
	LookScript   = lookScript
	ParseLook    = parseLook
	StageScript  = staging.script
	StagedScript = stagedScript
	PlanStage    = planStage
)

// Linked and Sent are the decisions of a staging.
func (s staging) Linked() map[int]string { return s.link }
func (s staging) Sent() []int            { return s.send }
