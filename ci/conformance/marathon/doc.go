// Package marathon has the conformance suite of Marathon's API as clients reach
// it through a cluster's front door: apps, groups, deployments, the queue,
// events, versions, and what it says to wrong input. Its tests have the build
// tag e2e; see package target.
package marathon
