// Package quota holds the quota requests and statuses of Mesos, generated from
// Mesos' own definitions.
package quota
