package bootstrap

import (
	"encoding/json"
	"strings"

	"dcos.example/dcos/runtime/config"
)

// OwnerOf is the owner of a host that installed itself: the id of its cluster
// in the form of a token. Whoever installs for the same cluster may go on with
// such a host.
func OwnerOf(clusterID string) string { return strings.ReplaceAll(clusterID, "-", "") }

// mayTake reports whether a host that belongs to owner is one that installed
// itself for the cluster of n.
func (n node) mayTake(owner string) bool {
	for _, f := range []string{config.MasterFile, config.AgentFile} {
		var c struct {
			Cluster struct {
				ID string `json:"id"`
			} `json:"cluster"`
		}
		if json.Unmarshal(n.files[f].Data, &c) == nil && c.Cluster.ID != "" && OwnerOf(c.Cluster.ID) == owner {
			return true
		}
	}
	return false
}
