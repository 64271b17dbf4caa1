package archive

// Names of the files that order a restore, in config.RestoreDir of a master.
const (
	OrderName     = "order.json"
	OrderSnapshot = "snapshot.db"
)

// Order is what the installer leaves on an empty master that is to start from a
// backup. It is written after the snapshot beside it.
type Order struct {
	Backup    string `json:"backup"` // its id
	ClusterID string `json:"cluster_id"`
	SHA256    string `json:"sha256"` // of the snapshot
	// ForgetAgents are those that will not come back: their hosts are others
	// now. Without this their tasks would be waited for.
	ForgetAgents []string `json:"forget_agents,omitempty"`
}
