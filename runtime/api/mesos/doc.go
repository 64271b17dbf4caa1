// Package mesos holds the messages of Mesos that the v1 APIs share, generated from
// Mesos' own definitions. Spellings are those of the wire.
package mesos
