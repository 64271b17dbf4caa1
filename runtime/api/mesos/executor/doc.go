// Package executor holds the messages of the v1 executor API of Mesos, generated from
// Mesos' own definitions.
package executor
