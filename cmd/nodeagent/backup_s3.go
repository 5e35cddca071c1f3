package main

import (
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/s3"
)

// s3Store is the store in a bucket that cfg describes. Its keys are read when it is used.
func (m *machine) s3Store(cfg etcdbackup.S3Config) (etcdbackup.Store, error) {
	return s3.New(m.host, cfg, m.nodeName())
}
