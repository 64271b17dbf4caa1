// Package agentlink is the private protocol between master and agents, generated from
// agentlink.proto, which explains it.
package agentlink
