//go:build e2e && universe

package e2e

import "testing"

// TestKafkaUpgrade goes from one release of Kafka to the next under writers,
// one broker after another.
func TestKafkaUpgrade(t *testing.T) {
	c := universeCluster(t, "e2ekafkaup", "198.19.133.0/24", 3, "1GiB", "kafka:4.2.1-1", "kafka:4.3.1-1")
	s := c.installService(t, "kafka", "small", nil, "--package-version", "4.2.1-1")
	k := newKafka(t, s)
	must(t, k.create("orders", 12, 3))
	w := k.write(t, "orders")
	w.more(t, 100)
	s.upgrade(t, "4.3.1-1", nil, "kafka:4.3.1-1", "kafka-0", "kafka-1", "kafka-2")
	s.run(t, "finalize")
	w.more(t, 100)
	k.whole(t, "orders", 3)
	w.end(t)
	k.read(t, "orders", w.acknowledged)
	k.close()
	s.uninstall(t)
}
