// Package mesos has the conformance suite of the Mesos APIs as clients reach
// them through a cluster's front door: codes, headers, bodies and framing of
// the scheduler and operator APIs, the JSON views of master and agent, and
// files of sandboxes. Its tests have the build tag e2e; see package target.
package mesos
