package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/apache/cassandra-gocql-driver/v2"
)

// schema is the statements that make all keyspaces of people's, in order.
type schema []string

// describe asks a node for the schema.
func describe(ctx context.Context, s *gocql.Session) (schema, error) {
	rows := s.Query("DESCRIBE SCHEMA").IterContext(ctx).Scanner()
	var all schema
	for rows.Next() {
		var keyspace, kind, name, statement string
		if err := rows.Scan(&keyspace, &kind, &name, &statement); err != nil {
			return nil, err
		}
		all = append(all, statement)
	}
	return all, rows.Err()
}

// apply makes what is not there yet.
func (all schema) apply(ctx context.Context, s *gocql.Session) error {
	for _, statement := range all {
		err := s.Query(statement).ExecContext(ctx)
		var exists *gocql.RequestErrAlreadyExists
		if err != nil && !errors.As(err, &exists) {
			return fmt.Errorf("%s: %w", statement, err)
		}
		if err := s.AwaitSchemaAgreement(ctx); err != nil {
			return fmt.Errorf("wait until all nodes know the schema: %w", err)
		}
	}
	return nil
}

// restoreSchema makes the keyspaces and tables of a backup.
func restoreSchema(ctx context.Context, e environment) error {
	if err := e.named(); err != nil {
		return err
	}
	c, err := e.bucket.open()
	if err != nil {
		return err
	}
	text, err := c.read(ctx, e.schemaKey())
	if err != nil {
		return fmt.Errorf("read the schema of %s: %w", e.snapshot, err)
	}
	var all schema
	if err := json.Unmarshal(text, &all); err != nil {
		return fmt.Errorf("read the schema of %s: %w", e.snapshot, err)
	}
	s, err := e.session()
	if err != nil {
		return err
	}
	defer s.Close()
	return all.apply(ctx, s)
}

// count asks how many nodes there are.
func (e environment) count(ctx context.Context) (int, error) {
	s, err := e.session()
	if err != nil {
		return 0, err
	}
	defer s.Close()
	var peers int
	if err := s.Query("SELECT count(*) FROM system.peers_v2").Consistency(gocql.One).ScanContext(ctx, &peers); err != nil {
		return 0, fmt.Errorf("count the nodes: %w", err)
	}
	return peers + 1, nil
}
