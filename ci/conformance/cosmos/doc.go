// Package cosmos has the conformance suite of the package API of DC/OS (Cosmos)
// as clients reach it through a cluster's front door: repositories, search,
// descriptions, rendering, and an app from its installation to its end, with
// exact media types and what is said to wrong input. The cluster fetches
// packages from the suite, so it must reach the machine that this runs on. Its
// tests have the build tag e2e; see package target.
package cosmos
