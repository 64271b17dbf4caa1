//go:build !race

package etcd_test

import "dcos.example/dcos/runtime/state/etcd"

func compact(m *etcd.Member) { m.Compact() }
