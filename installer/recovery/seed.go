package recovery

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"dcos.example/dcos/installer/host"
	"dcos.example/dcos/providers"
	"dcos.example/dcos/runtime/backup/archive"
	"dcos.example/dcos/runtime/config"
	"dcos.example/dcos/runtime/fault"
)

// Seed is the store of a backup on its way to the master that begins from it.
type Seed struct {
	Host     string // the first master
	Snapshot string // path on this machine
	Order    archive.Order

	once sync.Once
	err  error
}

// Open is open, but that the first master is brought the seed before its unit
// is started. Nothing else of the installation differs from any other.
func (s *Seed) Open(open host.Opener) host.Opener {
	return func(ctx context.Context, ref host.Ref) (host.Host, error) {
		h, err := open(ctx, ref)
		if err != nil || ref.Name != s.Host {
			return h, err
		}
		return seeded{h, s}, nil
	}
}

// seeded is the first master.
type seeded struct {
	host.Host
	seed *Seed
}

func (h seeded) StartUnit(ctx context.Context, name string) error {
	if name == config.UnitMaster {
		h.seed.once.Do(func() {
			providers.Note(ctx, "start units", "bringing the backup")
			h.seed.err = h.seed.bring(ctx, h.Host)
		})
		if h.seed.err != nil {
			return h.seed.err
		}
	}
	return h.Host.StartUnit(ctx, name)
}

// bring writes the snapshot and then the order that makes it count.
func (s *Seed) bring(ctx context.Context, h host.Host) error {
	b, err := os.ReadFile(s.Snapshot)
	if err != nil {
		return fault.New("bring the backup", fault.Internal, err)
	}
	order, err := json.MarshalIndent(s.Order, "", "  ")
	if err != nil {
		return fault.New("bring the backup", fault.Internal, err)
	}
	if err := h.WriteFile(ctx, path.Join(config.RestoreDir, archive.OrderSnapshot), host.File{Data: b, Mode: 0o600}); err != nil {
		return err
	}
	return h.WriteFile(ctx, path.Join(config.RestoreDir, archive.OrderName), host.File{Data: append(order, '\n'), Mode: 0o600})
}

// Halt stops the master on a host and moves what it holds away, so that it
// starts empty. Where it is now is returned, "" when there was nothing. Nothing
// is deleted.
func Halt(ctx context.Context, h host.Host, now time.Time) (string, error) {
	if err := h.StopUnit(ctx, config.UnitMaster); err != nil {
		return "", err
	}
	data := config.VarDir + "/master"
	aside := data + ".before-restore-" + now.UTC().Format("20060102T150405Z")
	// What a restore that failed has left must not be found by the next.
	out, err := h.Run(ctx, "/bin/sh", "-c", `rm -rf "$3"; if [ -d "$1" ]; then mv "$1" "$2" && echo moved; fi`, "sh", data, aside, config.RestoreDir)
	if err != nil {
		return "", err
	}
	if out.Code != 0 {
		return "", fault.Newf("move the store away", fault.Internal, "%s", strings.TrimSpace(out.Stderr))
	}
	if strings.TrimSpace(out.Stdout) == "moved" {
		return aside, nil
	}
	return "", nil
}

// agentRecord is where an agent keeps who it is.
const agentRecord = config.VarDir + "/agent/meta/agent.json"

// Agents looks which agents the hosts have. It takes as long as the slowest
// host does.
func Agents(ctx context.Context, refs map[netip.Addr]host.Ref, open host.Opener) map[netip.Addr]Standing {
	out := map[netip.Addr]Standing{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for addr, ref := range refs {
		all.Go(func() {
			st := standing(ctx, ref, open)
			mu.Lock()
			defer mu.Unlock()
			out[addr] = st
		})
	}
	all.Wait()
	return out
}

func standing(ctx context.Context, ref host.Ref, open host.Opener) Standing {
	h, err := open(ctx, ref)
	if fault.Is(err, fault.NotFound) {
		return Standing{Known: true} // the machine itself is gone
	}
	if err != nil {
		return Standing{}
	}
	f, err := h.ReadFile(ctx, agentRecord)
	if fault.Is(err, fault.NotFound) {
		return Standing{Known: true}
	}
	var a struct {
		ID string `json:"id"`
	}
	if err != nil || json.Unmarshal(f.Data, &a) != nil {
		return Standing{}
	}
	return Standing{Known: true, ID: a.ID}
}
