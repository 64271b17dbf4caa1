// Command kafkactl is what a Kafka service asks of its own brokers without
// starting a Java machine for it: whether one is ready, whether there is a
// cluster yet, and that partitions be spread anew.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const usage = `kafkactl ready        is this broker known to the others, and has it caught up?
kafkactl exists       does any other broker of this service answer?
kafkactl balance      spread partitions over all brokers but those of $WITHOUT
kafkactl finalize     use what all brokers can do, for good`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	e := fromEnvironment(os.Getenv)
	if len(args) != 1 {
		return errors.New(usage)
	}
	switch args[0] {
	case "ready":
		return e.with(admin(ready(ctx, e)), net.JoinHostPort("127.0.0.1", e.port))
	case "exists":
		return exists(ctx, e)
	case "balance":
		return e.with(admin(balance(ctx, e)), e.vip())
	case "finalize":
		return e.with(func(c *kgo.Client) error { return finalize(ctx, c, kadm.NewClient(c)) }, e.vip())
	}
	return errors.New(usage)
}

// environment is what a task of the service knows.
type environment struct {
	index          int32
	port           string
	controllerPort string
	host           string // where names of tasks are
	controllers    int
	tls            bool
	without        string
}

func fromEnvironment(get func(string) string) environment {
	e := environment{port: get("PORT_BROKER"), controllerPort: get("PORT_CONTROLLER"), host: get("FRAMEWORK_HOST"), tls: get("KAFKA_TLS") != "", without: get("WITHOUT")}
	index, _ := strconv.Atoi(get("POD_INSTANCE_INDEX"))
	e.index = int32(index)
	e.controllers, _ = strconv.Atoi(get("KAFKA_CONTROLLERS"))
	return e
}

// vip is the address at which some broker answers.
func (e environment) vip() string {
	service, domain, _ := strings.Cut(e.host, ".autoip.dcos.")
	return "broker." + service + ".l4lb." + domain + ":9092"
}

// with calls f with a client that knows the brokers at seeds.
func (e environment) with(f func(*kgo.Client) error, seeds ...string) error {
	options := []kgo.Opt{kgo.SeedBrokers(seeds...), kgo.ClientID("kafkactl")}
	if e.tls {
		pool := x509.NewCertPool()
		ca, err := os.ReadFile("/etc/tls/client.ca")
		if err != nil {
			return err
		}
		if !pool.AppendCertsFromPEM(ca) {
			return errors.New("/etc/tls/client.ca holds no certificate")
		}
		// Brokers are asked by address too: their name is in the certificate,
		// whichever way they were found.
		options = append(options, kgo.DialTLSConfig(&tls.Config{RootCAs: pool, InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error {
			inter := x509.NewCertPool()
			for _, c := range s.PeerCertificates[1:] {
				inter.AddCert(c)
			}
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: inter})
			return err
		}}))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer client.Close()
	return f(client)
}

// admin is for who needs no more of a client.
func admin(f func(*kadm.Client) error) func(*kgo.Client) error {
	return func(c *kgo.Client) error { return f(kadm.NewClient(c)) }
}
