// Package gateway has the conformance suite of a cluster's front door: who may
// pass, redirects, logins and users, metadata, names and VIPs, and apps by
// label, as DC/OS's clients expect them. Its tests have the build tag e2e; see
// package target.
package gateway
