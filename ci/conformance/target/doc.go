// Package target finds the cluster that a conformance suite asks: the one that
// DCOS_CONFORMANCE_URL names, with the user DCOS_CONFORMANCE_USER and the
// password DCOS_CONFORMANCE_PASSWORD, or a small local one of its own, made from
// DCOS_BIN and DCOS_BUNDLE as `make test` sets them and destroyed afterwards.
// It can be any cluster that speaks these APIs; the suites leave nothing on it.
//
// Everything but this file has the build tag e2e.
package target
