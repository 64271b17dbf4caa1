// Package agent holds the messages of the v1 operator API of Mesos agents, generated
// from Mesos' own definitions.
package agent
