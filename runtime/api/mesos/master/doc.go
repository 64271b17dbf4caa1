// Package master holds the messages of the v1 operator API of Mesos masters,
// generated from Mesos' own definitions.
package master
