// Package scheduler holds the messages of the v1 scheduler API of Mesos, generated
// from Mesos' own definitions.
package scheduler
