// Package allocator holds the inverse offers' statuses that the other APIs of Mesos
// refer to, generated from Mesos' own definitions.
package allocator
