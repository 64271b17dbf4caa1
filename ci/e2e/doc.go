// Package e2e drives a whole local cluster as a user does: through
// dcos-install, dcos and the public HTTP APIs. Its tests have the build tag
// e2e, need root, and find the binaries and the bundle by DCOS_BIN and
// DCOS_BUNDLE, which `make test` sets.
package e2e
