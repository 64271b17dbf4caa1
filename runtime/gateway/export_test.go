package gateway

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
)

// Table is the front door as text, in the order of paths.
func (g *Gateway) Table() string {
	var lines []string
	for _, r := range g.routes {
		lines = append(lines, fmt.Sprintf("%-40s %-9s %s\n", r.path, r.access, r.says))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// DialApps is how the gateway connects to apps.
var DialApps = dialApps

// SetApps replaces the way to apps.
func (g *Gateway) SetApps(rt http.RoundTripper) { g.apps = rt }

// SetLog replaces the log.
func (g *Gateway) SetLog(log *slog.Logger) { g.cfg.Log = log }
