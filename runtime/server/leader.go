package server

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"dcos.example/dcos/runtime/fault"
)

// maxHops bounds redirects from master to master while leadership moves.
const maxHops = 5

// FollowLeader returns a RoundTripper that follows the 307 by which a master
// that does not lead names the one that does: "Location: //host:port", with or
// without a path. Everything else of the request stays as it is. A request
// whose body cannot be sent twice (no GetBody) is not repeated: its caller
// gets the 307.
func FollowLeader(base http.RoundTripper) http.RoundTripper { return follower{base} }

type follower struct{ base http.RoundTripper }

func (f follower) RoundTrip(req *http.Request) (*http.Response, error) {
	cur := req
	for range maxHops {
		resp, err := f.base.RoundTrip(cur)
		if err != nil || resp.StatusCode != http.StatusTemporaryRedirect {
			return resp, err
		}
		loc, err := url.Parse(resp.Header.Get("Location"))
		if err != nil || loc.Host == "" {
			return resp, nil
		}
		next := cur.Clone(cur.Context())
		if cur.Body != nil && cur.Body != http.NoBody {
			if req.GetBody == nil {
				return resp, nil
			}
			if next.Body, err = req.GetBody(); err != nil {
				return resp, nil
			}
		}
		// Read the little there is, so that the connection is used again.
		_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
		_ = resp.Body.Close()
		u := *cur.URL
		u.Host = loc.Host
		if loc.Scheme != "" {
			u.Scheme = loc.Scheme
		}
		if loc.Path != "" {
			u.Path, u.RawPath = loc.Path, loc.RawPath
			if loc.RawQuery != "" {
				u.RawQuery = loc.RawQuery
			}
		}
		next.URL, next.Host = &u, ""
		cur = next
	}
	return nil, fault.Newf("find the leading master", fault.Unavailable, "%d redirects, the last to %s", maxHops, cur.URL.Host)
}

// Transport is an http.Transport for calls within the cluster: it gives up
// soon on a host that does not answer a dial, and never on a stream.
func Transport(cfg *tls.Config) *http.Transport {
	return &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 2 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:     cfg,
		TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConnsPerHost: 32,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true,
	}
}
