package server

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dialTimeout = 2 * time.Second
	// unanswered is how long what was sent may stay unacknowledged, and
	// silent how long a connection may be idle before it is probed. A host
	// that is switched off says nothing: without these its connections hang
	// for minutes, and with them everyone's requests to a former leader.
	unanswered = 3 * time.Second
	silent     = 5 * time.Second
)

// Transport is an http.Transport for calls within the cluster: it gives up
// soon on a host that does not answer, and never on a stream whose peer lives.
// A probe per five idle seconds is what an open connection costs.
func Transport(cfg *tls.Config) *http.Transport {
	dialer := &net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: silent, Interval: time.Second, Count: 3},
		Control:         boundUnanswered,
	}
	return &http.Transport{
		DialContext:         dialer.DialContext,
		TLSClientConfig:     cfg,
		TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConnsPerHost: 32,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true,
	}
}

func boundUnanswered(_, _ string, c syscall.RawConn) error {
	var set error
	err := c.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unanswered.Milliseconds()))
	})
	return errors.Join(err, set)
}
