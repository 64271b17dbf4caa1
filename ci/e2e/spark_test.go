//go:build e2e && universe

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestSpark computes in both modes, with files from HDFS and results to Kafka,
// and looks for what ended in the history.
func TestSpark(t *testing.T) {
	c := universeCluster(t, "e2espark", "198.19.135.0/24", 4, "2560MiB", "hdfs", "kafka", "spark")
	files := c.installService(t, "hdfs", "small", nil)
	messages := c.installService(t, "kafka", "small", nil)
	s := c.installService(t, "spark", "small", object{"hdfs": object{"service": "hdfs"}, "history": object{"enabled": true}})

	t.Run("client mode", func(t *testing.T) {
		pi := regexp.MustCompile(`Pi is roughly 3\.1\d+`)
		if out := c.dcos(t, "task", "exec", "worker-0-worker", "run-example", "SparkPi", "4"); !pi.MatchString(out) {
			t.Errorf("SparkPi says %q", out)
		}
	})
	t.Run("cluster mode, from HDFS to Kafka", func(t *testing.T) {
		h := &hdfs{s: files, nodes: files.endpoint(t, "name-http")}
		h.roles(t)
		h.put(t, "/words/file", strings.Repeat("to be or not to be\n", 1000))
		brokers := messages.endpoint(t, "broker")
		out := c.dcos(t, "task", "exec", "worker-0-worker", "run-example", "--deploy-mode", "cluster",
			"--master", "spark://"+s.endpoint(t, "rest")[0], "WordsToKafka", "hdfs://hdfs/words", strings.Join(brokers, ","), "words")
		id := regexp.MustCompile(`driver-[0-9]+-[0-9]+`).FindString(out)
		if id == "" {
			t.Fatalf("spark-submit names no driver: %s", out)
		}
		s.eventually(t, "the driver has finished", func() error {
			var status struct{ DriverState string }
			must(t, request("GET", "http://"+s.endpoint(t, "rest")[0]+"/v1/submissions/status/"+id, nil, func(r io.Reader) error {
				return json.NewDecoder(r).Decode(&status)
			}))
			switch status.DriverState {
			case "FINISHED":
				return nil
			case "SUBMITTED", "RUNNING":
				return fmt.Errorf("it is %s", status.DriverState)
			}
			t.Fatalf("it is %s", status.DriverState)
			return nil
		})
		counts := map[string]string{}
		client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics("words"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		must(t, err)
		defer client.Close()
		ctx, cancel := context.WithTimeout(interrupted, patience)
		defer cancel()
		for len(counts) < 4 && ctx.Err() == nil {
			client.PollFetches(ctx).EachRecord(func(r *kgo.Record) { counts[string(r.Key)] = string(r.Value) })
		}
		if fmt.Sprint(counts) != "map[be:2000 not:1000 or:1000 to:2000]" {
			t.Errorf("words: %v", counts)
		}
	})
	t.Run("the master is started again while a program runs", func(t *testing.T) {
		done := make(chan error, 1)
		go func() {
			_, err := c.try("dcos", "task", "exec", "worker-1-worker", "run-example", "SparkPi", "2000")
			done <- err
		}()
		s.eventually(t, "the program runs", func() error {
			var state struct{ ActiveApps []json.RawMessage }
			if err := fetch("http://"+s.endpoint(t, "master-ui")[0]+"/json/", &state); err != nil {
				return err
			}
			if len(state.ActiveApps) == 0 {
				return fmt.Errorf("there is none")
			}
			return nil
		})
		c.dcos(t, "spark", "pod", "restart", "master-0")
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.await(t, "recovery", "COMPLETE")
	})
	t.Run("the history", func(t *testing.T) {
		s.eventually(t, "it has all applications", func() error {
			var apps []struct {
				Name     string
				Attempts []struct{ Completed bool }
			}
			if err := fetch("http://"+s.endpoint(t, "history")[0]+"/api/v1/applications", &apps); err != nil {
				return err
			}
			completed := map[string]int{}
			for _, a := range apps {
				if len(a.Attempts) > 0 && a.Attempts[0].Completed {
					completed[a.Name]++
				}
			}
			if completed["SparkPi"] != 2 || completed["WordsToKafka"] != 1 {
				return fmt.Errorf("%v", completed)
			}
			return nil
		})
	})
	t.Run("what others need stays", func(t *testing.T) {
		if _, err := c.try("dcos", "package", "uninstall", "hdfs", "--yes"); err == nil || !strings.Contains(err.Error(), "spark") {
			t.Errorf("uninstalling hdfs while spark requires it: %v", err)
		}
	})
	for _, x := range []*service{s, messages, files} {
		c.dcos(t, "package", "uninstall", x.name, "--yes")
		x.eventually(t, x.name+" is gone", func() error {
			r, err := c.try("dcos", "service", "--json")
			if err == nil && strings.Contains(r, `"`+x.name+`"`) {
				err = fmt.Errorf("%s", r)
			}
			return err
		})
	}
}

// put makes a file of text.
func (h *hdfs) put(t *testing.T, path, text string) {
	t.Helper()
	at, err := h.url(path, "CREATE&overwrite=true&noredirect=true")
	must(t, err)
	var where struct{ Location string }
	must(t, request("PUT", at, nil, func(r io.Reader) error { return json.NewDecoder(r).Decode(&where) }))
	must(t, request("PUT", where.Location, strings.NewReader(text), func(io.Reader) error { return nil }))
}

func fetch(url string, v any) error {
	return request(http.MethodGet, url, nil, func(r io.Reader) error { return json.NewDecoder(r).Decode(v) })
}
