// Package maintenance holds the schedules and statuses of maintenance in Mesos,
// generated from Mesos' own definitions.
package maintenance
