package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/nodeagent/nodeagent/pkg/host"
)

const (
	// dialTimeout is how long a member on this very host has to answer.
	dialTimeout = 5 * time.Second
	// window is the flow control window of streams: gRPC's default of 64 KiB makes a
	// snapshot take nearly twice as long.
	window = 1 << 20
)

// Dial connects to the member and makes sure that it answers, within five seconds. The
// certificates are read through h each time, so that renewed ones are used. The server's
// certificate is always verified, its names included. The caller closes the client.
func (l Local) Dial(ctx context.Context, h *host.Host) (*clientv3.Client, error) {
	config, err := l.tlsConfig(h)
	if err != nil {
		return nil, fmt.Errorf("dial etcd: %w", err)
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            []string{l.Endpoint},
		TLS:                  config,
		DialTimeout:          dialTimeout,
		DialKeepAliveTime:    30 * time.Second,
		DialKeepAliveTimeout: 10 * time.Second,
		Logger:               zap.NewNop(),
		DialOptions: []grpc.DialOption{
			grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("dial etcd at %s: %w", l.Endpoint, err)
	}
	if err := answers(ctx, client); err != nil {
		if reason := refusal(ctx, config, l.Endpoint); reason != nil {
			err = reason
		}
		return nil, fmt.Errorf("dial etcd at %s: %w", l.Endpoint, errors.Join(err, client.Close()))
	}
	return client, nil
}

// answers asks the member for its status once. The client's own Status waits for a connection
// as long as it may and then knows only that it took too long; this says why there is none.
func answers(ctx context.Context, client *clientv3.Client) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	maintenance := etcdserverpb.NewMaintenanceClient(client.ActiveConnection())
	_, err := maintenance.Status(ctx, &etcdserverpb.StatusRequest{}, grpc.WaitForReady(false))
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// refusal is why a TLS handshake with a member fails that did not answer; nil when that cannot
// be told. A server refuses a client certificate after the client believes itself connected:
// a client that writes at once may be told of a broken pipe, one that only reads is told why.
func refusal(ctx context.Context, config *tls.Config, endpoint string) error {
	if config == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	dialer := tls.Dialer{Config: config}
	conn, err := dialer.DialContext(ctx, "tcp", strings.TrimPrefix(endpoint, "https://"))
	if err == nil {
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends the read below
		defer stop()
		_, err = conn.Read(make([]byte, 1))
		_ = conn.Close() // nothing was sent
	}
	if ctx.Err() != nil || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (l Local) tlsConfig(h *host.Host) (*tls.Config, error) {
	if !strings.HasPrefix(l.Endpoint, "https://") {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if l.CAFile != "" {
		pem, err := h.ReadFile(l.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read certificate authority: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read certificate authority: no certificate in %s", l.CAFile)
		}
	}
	cert, err := h.ReadFile(l.CertFile)
	if err != nil {
		return nil, fmt.Errorf("read client certificate: %w", err)
	}
	key, err := h.ReadFile(l.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read client key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("read client certificate %s and its key: %w", l.CertFile, err)
	}
	config.Certificates = []tls.Certificate{pair}
	return config, nil
}
