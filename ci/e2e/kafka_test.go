//go:build e2e && universe

package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestKafka uses Kafka as its users do, through everything that befalls it:
// what was acknowledged is there at the end, once and in order.
func TestKafka(t *testing.T) {
	c := universeCluster(t, "e2ekafka", "198.19.132.0/24", 5, "1GiB", "kafka:4.3.1-1")
	s := c.installService(t, "kafka", "small", nil)
	k := newKafka(t, s)
	must(t, k.create("orders", 12, 3))
	w := k.write(t, "orders")
	w.more(t, 100)

	t.Run("the loss of a host", func(t *testing.T) {
		task, err := s.task("kafka-0-broker")
		must(t, err)
		host := c.hostOf(t, task.Host)
		c.install(t, "host", "stop", "-now", host)
		w.more(t, 100)
		k.until(t, "its partitions are led by others", func() error {
			return k.partitions("orders", func(p kadm.PartitionDetail) error {
				if p.Leader == 0 || len(p.ISR) > 2 {
					return fmt.Errorf("partition %d is led by %d, in sync are %v", p.Partition, p.Leader, p.ISR)
				}
				return nil
			})
		})
		w.more(t, 100)
		c.install(t, "host", "start", host)
		k.whole(t, "orders", 3)
		after, err := s.task("kafka-0-broker")
		must(t, err)
		if after.Host != task.Host {
			t.Errorf("broker 0 went from %s to %s, away from its data", task.Host, after.Host)
		}
		s.await(t, "recovery", "COMPLETE")
	})
	t.Run("another configuration, one broker at a time", func(t *testing.T) {
		before := k.tasks(t, 3)
		s.update(t, object{"kafka": object{"message_max_bytes": 2000000}})
		w.more(t, 100)
		for name, id := range k.tasks(t, 3) {
			if before[name] == id {
				t.Errorf("%s was not started anew", name)
			}
		}
		for id := range int32(3) {
			if got := k.config(t, id, "message.max.bytes"); got != "2000000" {
				t.Errorf("message.max.bytes of broker %d is %q", id, got)
			}
		}
		k.whole(t, "orders", 3)
	})
	t.Run("from three brokers to five", func(t *testing.T) {
		before := k.tasks(t, 3)
		s.update(t, object{"brokers": object{"count": 5}})
		for name, id := range k.tasks(t, 3) {
			if before[name] != id {
				t.Errorf("%s was started anew, and did not change", name)
			}
		}
		s.run(t, "rebalance")
		k.whole(t, "orders", 5)
		w.more(t, 100)
		count := map[int32]int{}
		must(t, k.partitions("orders", func(p kadm.PartitionDetail) error {
			for _, r := range p.Replicas {
				count[r]++
			}
			return nil
		}))
		if len(count) != 5 {
			t.Errorf("replicas by broker: %v", count)
		}
	})
	t.Run("a broker without its data is made whole", func(t *testing.T) {
		for _, pod := range []string{"kafka-0", "kafka-4"} {
			s.replace(t, pod, "broker")
			k.whole(t, "orders", 5)
			w.more(t, 100)
		}
		k.until(t, "the quorum is of those that are there", func() error {
			voters, err := k.voters()
			if err == nil && !slices.Equal(voters, []int32{0, 1, 2}) {
				err = fmt.Errorf("voters: %v", voters)
			}
			return err
		})
	})
	t.Run("what people try in vain", func(t *testing.T) {
		for what, args := range map[string][]string{
			"already installed":   {"package", "install", "kafka", "--yes"},
			"has room for 5 of 6": {"kafka", "update", "start", "--options", c.options(t, object{"brokers": object{"count": 6}})},
			"partitions":          {"kafka", "update", "start", "--options", c.options(t, object{"kafka": object{"num_partitions": "three"}})},
		} {
			if _, err := c.try("dcos", args...); err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("dcos %v: %v; it does not say %q", args, err, what)
			}
		}
	})
	w.end(t)
	k.read(t, "orders", w.acknowledged)
	k.close()
	s.uninstall(t)
}

// kafka is a client of a service's brokers.
type kafka struct {
	s      *service
	seeds  []string
	client *kgo.Client
	admin  *kadm.Client
}

func newKafka(t *testing.T, s *service) *kafka {
	t.Helper()
	k := &kafka{s: s, seeds: s.endpoint(t, "broker")}
	k.client = k.connect(t)
	k.admin = kadm.NewClient(k.client)
	t.Cleanup(k.close)
	return k
}

func (k *kafka) connect(t *testing.T, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(k.seeds...), kgo.MetadataMaxAge(5 * time.Second), kgo.DialTimeout(2 * time.Second)}, options...)...)
	must(t, err)
	return client
}

func (k *kafka) close() { k.client.Close() }

func (k *kafka) until(t *testing.T, what string, f func() error) {
	t.Helper()
	k.s.eventually(t, what, f)
}

func (k *kafka) create(topic string, partitions int32, replicas int16) error {
	_, err := k.admin.CreateTopic(interrupted, partitions, replicas, nil, topic)
	return err
}

// partitions calls f for each partition of a topic, until one is an error.
func (k *kafka) partitions(topic string, f func(kadm.PartitionDetail) error) error {
	ctx, cancel := context.WithTimeout(interrupted, 10*time.Second)
	defer cancel()
	m, err := k.admin.Metadata(ctx, topic)
	if err != nil {
		return err
	}
	all := m.Topics[topic].Partitions.Sorted()
	if len(all) == 0 {
		return fmt.Errorf("topic %s: %w", topic, m.Topics[topic].Err)
	}
	for _, p := range all {
		if err := f(p); err != nil {
			return err
		}
	}
	return nil
}

// whole waits until there are so many brokers and no partition lacks a replica.
func (k *kafka) whole(t *testing.T, topic string, brokers int) {
	t.Helper()
	k.until(t, fmt.Sprintf("there are %d brokers, all in sync", brokers), func() error {
		ctx, cancel := context.WithTimeout(interrupted, 10*time.Second)
		defer cancel()
		all, err := k.admin.ListBrokers(ctx)
		if err != nil {
			return err
		}
		if len(all) != brokers {
			return fmt.Errorf("brokers: %v", all.NodeIDs())
		}
		return k.partitions(topic, func(p kadm.PartitionDetail) error {
			if len(p.ISR) != len(p.Replicas) {
				return fmt.Errorf("of partition %d's replicas %v are in sync %v", p.Partition, p.Replicas, p.ISR)
			}
			return nil
		})
	})
}

// voters are the controllers of the quorum.
func (k *kafka) voters() ([]int32, error) {
	ctx, cancel := context.WithTimeout(interrupted, 10*time.Second)
	defer cancel()
	req := kmsg.NewPtrDescribeQuorumRequest()
	topic, partition := kmsg.NewDescribeQuorumRequestTopic(), kmsg.NewDescribeQuorumRequestTopicPartition()
	topic.Topic, topic.Partitions = "__cluster_metadata", append(topic.Partitions, partition)
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, k.client)
	if err != nil {
		return nil, err
	}
	var all []int32
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			for _, v := range p.CurrentVoters {
				all = append(all, v.ReplicaID)
			}
		}
	}
	slices.Sort(all)
	return all, nil
}

// tasks returns the ids of brokers' tasks by name.
func (k *kafka) tasks(t *testing.T, n int) map[string]string {
	t.Helper()
	all := map[string]string{}
	for i := range n {
		task, err := k.s.task(fmt.Sprintf("kafka-%d-broker", i))
		must(t, err)
		all[task.Name] = task.ID
	}
	return all
}

func (k *kafka) config(t *testing.T, broker int32, key string) string {
	t.Helper()
	all, err := k.admin.DescribeBrokerConfigs(interrupted, broker)
	must(t, err)
	for _, r := range all {
		for _, c := range r.Configs {
			if c.Key == key {
				return c.MaybeValue()
			}
		}
	}
	return ""
}

// writer writes numbers, each once, and remembers which were acknowledged.
type writer struct {
	client       *kgo.Client
	stop         chan struct{}
	wait         sync.WaitGroup
	mu           sync.Mutex
	acknowledged map[string]bool
	failed       error
}

// write begins to write to a topic, some fifty messages a second.
func (k *kafka) write(t *testing.T, topic string) *writer {
	t.Helper()
	w := &writer{client: k.connect(t, kgo.RecordDeliveryTimeout(5*time.Minute)), stop: make(chan struct{}), acknowledged: map[string]bool{}}
	w.wait.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-w.stop:
				return
			case <-tick.C:
			}
			value := fmt.Sprint(n)
			w.client.Produce(context.Background(), &kgo.Record{Topic: topic, Key: []byte(value), Value: []byte(value)}, func(r *kgo.Record, err error) {
				w.mu.Lock()
				defer w.mu.Unlock()
				if err != nil {
					w.failed = err
				} else {
					w.acknowledged[value] = true
				}
			})
		}
	})
	t.Cleanup(func() { w.finish() })
	return w
}

func (w *writer) count() (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acknowledged), w.failed
}

// more waits until so many further messages are acknowledged.
func (w *writer) more(t *testing.T, n int) {
	t.Helper()
	first, _ := w.count()
	eventually(t, fmt.Sprintf("%d more messages are written", n), func() error {
		now, err := w.count()
		must(t, err)
		if now < first+n {
			return fmt.Errorf("%d are", now-first)
		}
		return nil
	})
}

func (w *writer) finish() {
	select {
	case <-w.stop:
		return
	default:
	}
	close(w.stop)
	w.wait.Wait()
	ctx, cancel := context.WithTimeout(interrupted, patience)
	defer cancel()
	_ = w.client.Flush(ctx)
	w.client.Close()
}

func (w *writer) end(t *testing.T) {
	t.Helper()
	w.finish()
	n, err := w.count()
	must(t, err)
	t.Logf("%d messages were acknowledged, and none refused", n)
}

// read reads a topic as a member of a group, and compares it with what was
// acknowledged.
func (k *kafka) read(t *testing.T, topic string, want map[string]bool) {
	t.Helper()
	client := k.connect(t, kgo.ConsumerGroup("readers"), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer client.Close()
	missing, seen := maps.Clone(want), map[string]int{}
	ctx, cancel := context.WithTimeout(interrupted, patience)
	defer cancel()
	for len(missing) > 0 {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			left := slices.Sorted(maps.Keys(missing))
			t.Fatalf("%d of %d messages are not there, among them %v", len(left), len(want), left[:min(5, len(left))])
		}
		fetches.EachRecord(func(r *kgo.Record) {
			seen[string(r.Value)]++
			delete(missing, string(r.Value))
		})
	}
	for value, n := range seen {
		if n > 1 {
			t.Errorf("message %s is there %d times", value, n)
		}
	}
	t.Logf("%d messages were read, each once", len(seen))
}
