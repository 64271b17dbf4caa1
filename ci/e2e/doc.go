// Package e2e drives whole local clusters as a user does: through
// dcos-install, dcos and the public HTTP APIs, and nothing else. Its tests have
// the build tag e2e, need root, and find the binaries and the bundle by DCOS_BIN
// and DCOS_BUNDLE, which `make test` sets.
//
// They wait for conditions with deadlines that only a broken cluster misses;
// how fast things are is for ci/bench to say. Clusters are named e2e… and lie
// in 198.19.128.0/20. Each is destroyed when its test ends, fails or is
// interrupted, and a run that was killed is cleaned up by the next.
package e2e
