package recovery

import (
	"context"
	"encoding/json"
	"strings"

	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// StageServing is the stage of a master that takes its full part.
const StageServing = "serving"

// MasterView is what a master says of itself: the part of runtime/membership's
// View that counts here.
type MasterView struct {
	Stage    string `json:"stage"`
	ID       string `json:"id"` // "" while it has no data
	Majority bool   `json:"majority"`
	Index    uint64 `json:"index"`
	Reason   string `json:"reason"`
}

const daemon = config.CurrentLink + "/bin/dcosd"

// LookAtMaster asks the master on h, over its loopback, how it is.
func LookAtMaster(ctx context.Context, h host.Host) (v MasterView, err error) {
	const op = "ask the master how it is"
	out, err := h.Run(ctx, daemon, "members", "view")
	if err != nil {
		return v, err
	}
	if out.Code != 0 {
		return v, fault.Newf(op, fault.Unavailable, "%s", said(out))
	}
	if err := json.Unmarshal([]byte(out.Stdout), &v); err != nil {
		return v, fault.New(op, fault.Internal, err)
	}
	return v, nil
}

// GoOnAlone makes the master on h the only one.
func GoOnAlone(ctx context.Context, h host.Host) error {
	out, err := h.Run(ctx, daemon, "members", "recover", "-force")
	if err != nil {
		return err
	}
	if out.Code != 0 {
		return fault.Newf("run dcosd members recover", fault.Conflict, "%s", said(out))
	}
	return nil
}

func said(out host.Output) string {
	text := strings.TrimSpace(out.Stderr + out.Stdout)
	return strings.TrimPrefix(text, "dcosd: ")
}
