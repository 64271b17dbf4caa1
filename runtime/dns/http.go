package dns

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"dcos.example/dcos/runtime/dns/zone"
)

// The answers of Mesos-DNS' HTTP API. Where there is nothing it answers one
// entry of empty strings, which clients test for.
type (
	version struct {
		Service string
		Version string
		URL     string
	}
	host struct {
		Host string `json:"host"`
		IP   string `json:"ip"`
	}
	service struct {
		Service string `json:"service"`
		Host    string `json:"host"`
		IP      string `json:"ip"`
		Port    string `json:"port"`
	}
	enumeration struct {
		Frameworks []*enumFramework `json:"frameworks"`
	}
	enumFramework struct {
		Tasks []enumTask `json:"tasks"`
		Name  string     `json:"name"`
	}
	enumTask struct {
		Name    string       `json:"name"`
		ID      string       `json:"id"`
		Records []enumRecord `json:"records"`
	}
	enumRecord struct {
		Name string `json:"name"`
		Host string `json:"host"`
		Type string `json:"rtype"`
	}
)

// Handler serves the HTTP API of Mesos-DNS under /v1/. release is the version
// that /v1/version reports.
func (s *Server) Handler(release string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/version", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, version{Service: "Mesos-DNS", Version: release, URL: "https://github.com/mesosphere/mesos-dns"})
	})
	mux.HandleFunc("GET /v1/hosts/{host}", func(w http.ResponseWriter, r *http.Request) {
		name := fqdn(r.PathValue("host"))
		out := []host{}
		if set, ok := s.Zone().Lookup(name); ok {
			for _, a := range set.A {
				out = append(out, host{name, a.String()})
			}
		}
		if len(out) == 0 {
			out = append(out, host{})
		}
		reply(w, out)
	})
	mux.HandleFunc("GET /v1/services/{service}", func(w http.ResponseWriter, r *http.Request) {
		reply(w, services(s.Zone(), fqdn(r.PathValue("service"))))
	})
	mux.HandleFunc("GET /v1/enumerate", func(w http.ResponseWriter, _ *http.Request) { reply(w, enumerate(s.Zone())) })
	return mux
}

func fqdn(name string) string { return strings.TrimSuffix(strings.ToLower(name), ".") + "." }

func services(z *zone.Zone, name string) []service {
	out := []service{}
	if set, ok := z.Lookup(name); ok {
		for _, srv := range set.SRV {
			entry := service{Service: name, Host: srv.Target, Port: strconv.Itoa(int(srv.Port))}
			if target, ok := z.Lookup(srv.Target); ok && len(target.A) > 0 {
				entry.IP = target.A[0].String()
			}
			out = append(out, entry)
		}
	}
	if len(out) == 0 {
		out = append(out, service{})
	}
	return out
}

func enumerate(z *zone.Zone) enumeration {
	out := enumeration{Frameworks: []*enumFramework{}}
	for _, t := range z.Tasks() { // in order of framework
		n := len(out.Frameworks)
		if n == 0 || out.Frameworks[n-1].Name != t.Framework {
			out.Frameworks = append(out.Frameworks, &enumFramework{Name: t.Framework})
			n++
		}
		task := enumTask{Name: t.Name, ID: string(t.ID)}
		for _, r := range t.Records {
			task.Records = append(task.Records, enumRecord{Name: r.Name, Host: r.Value, Type: r.Type})
		}
		fw := out.Frameworks[n-1]
		fw.Tasks = append(fw.Tasks, task)
	}
	return out
}

func reply(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil { // the types above always marshal
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(b, '\n'))
}
