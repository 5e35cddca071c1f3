package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
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
	window = 4 << 20
	// readBuffer is how much is read of the connection at a time.
	readBuffer = 256 << 10
)

// NamesError is a server whose certificate is not valid for the address that it was dialed at.
type NamesError struct {
	Dialed string   // the address or name
	Names  []string // what the certificate is valid for
	err    error
}

func (e *NamesError) Error() string {
	has := "nothing"
	if len(e.Names) > 0 {
		has = strings.Join(e.Names, ", ")
	}
	return fmt.Sprintf("the server's certificate is not valid for %s, it names %s: issue it with this address among its names, or give a URL with one of those in backup.endpoints", e.Dialed, has)
}

func (e *NamesError) Unwrap() error { return e.err }

// Dial connects to the member and makes sure that it answers, within five seconds. The
// certificates are read through h each time, so that renewed ones are used. The server's
// certificate is always verified, its names included: one that names no address that was dialed is
// a NamesError. The caller closes the client, which has one endpoint.
func (l Local) Dial(ctx context.Context, h *host.Host) (*clientv3.Client, error) {
	if len(l.Endpoints) == 0 {
		return nil, errors.New("dial etcd: it listens nowhere that can be reached from this host")
	}
	var failed error
	queue := slices.Clone(l.Endpoints)
	for i := 0; i < len(queue); i++ {
		client, err := l.dial(ctx, h, queue[i])
		if err == nil {
			return client, nil
		}
		if errors.As(err, new(x509.UnknownAuthorityError)) {
			err = fmt.Errorf("%w: name the authority of etcd's certificate in backup.caFile", err)
		}
		var names x509.HostnameError
		mismatch := errors.As(err, &names)
		if mismatch {
			err = &NamesError{Dialed: names.Host, Names: certificateNames(names.Certificate), err: err}
			for _, more := range l.here.named(ctx, l.listen, queue[i], names.Certificate) {
				if !slices.Contains(queue, more) {
					queue = append(queue, more)
				}
			}
		}
		if failed == nil {
			failed = fmt.Errorf("dial etcd at %s: %w", queue[i], err)
		} else {
			failed = fmt.Errorf("%w; at %s: %w", failed, queue[i], err)
		}
		// What one address refuses for its own sake another may do.
		if !mismatch && !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.ENETUNREACH) {
			break
		}
	}
	return nil, failed
}

// Authority is what the member's certificate is verified against, in PEM; nil where it serves
// without TLS, or the system's roots are taken.
func (l Local) Authority(h *host.Host) ([]byte, error) {
	if l.ca.path == "" || !slices.ContainsFunc(l.Endpoints, isSecure) {
		return nil, nil
	}
	pem, err := l.ca.read(h)
	if err != nil {
		return nil, fmt.Errorf("read certificate authority: %w", err)
	}
	return pem, nil
}

// dial tries the client certificates in turn, for as long as etcd refuses them.
func (l Local) dial(ctx context.Context, h *host.Host, endpoint string) (*clientv3.Client, error) {
	if !isSecure(endpoint) {
		return l.connect(ctx, h, endpoint, nil)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	pem, err := l.Authority(h)
	if err != nil {
		return nil, err
	}
	if pem != nil {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read certificate authority: no certificate in %s", l.ca.path)
		}
	}
	var refused []error
	if l.bare {
		client, err := l.connect(ctx, h, endpoint, config)
		if !errors.Is(err, errRefused) {
			return client, err
		}
		refused = append(refused, fmt.Errorf("without one: %w", err))
	}
	for _, p := range l.pairs {
		loaded, err := p.load(h)
		if errors.Is(err, errNoPair) {
			continue
		}
		if err != nil {
			refused = append(refused, err)
			continue
		}
		config.Certificates = []tls.Certificate{loaded}
		client, err := l.connect(ctx, h, endpoint, config)
		if !errors.Is(err, errRefused) {
			return client, err
		}
		refused = append(refused, fmt.Errorf("%s: %w", p.cert.path, err))
	}
	return nil, noPair(refused)
}

// noPair says why there is no client certificate.
func noPair(refused []error) error {
	const remedy = "set backup.certFile and backup.keyFile"
	if len(refused) == 0 {
		return errors.New("no client certificate was found: " + remedy)
	}
	err := refused[0]
	for _, more := range refused[1:] {
		err = fmt.Errorf("%w; %w", err, more)
	}
	return fmt.Errorf("no client certificate that etcd takes: %w: %s", err, remedy)
}

// connect makes a client and asks the member one question.
func (l Local) connect(ctx context.Context, h *host.Host, endpoint string, config *tls.Config) (*clientv3.Client, error) {
	endpoint = l.reached(h, endpoint)
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            []string{endpoint},
		TLS:                  config.Clone(),
		DialTimeout:          dialTimeout,
		DialKeepAliveTime:    30 * time.Second,
		DialKeepAliveTimeout: 10 * time.Second,
		Logger:               zap.NewNop(),
		DialOptions: []grpc.DialOption{
			grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window), grpc.WithReadBufferSize(readBuffer),
		},
	})
	if err != nil {
		return nil, err
	}
	if err := answers(ctx, client); err != nil {
		if reason := refusal(ctx, config, endpoint); reason != nil {
			err = reason
		}
		return nil, errors.Join(err, client.Close())
	}
	return client, nil
}

// reached is the endpoint as this process reaches it: a socket lies where etcd sees it.
func (l Local) reached(h *host.Host, endpoint string) string {
	scheme, socket, is := strings.Cut(endpoint, "://")
	if !is || !strings.HasPrefix(scheme, "unix") {
		return endpoint
	}
	if l.PID != 0 {
		h = inside(h, l.PID)
	}
	return scheme + "://" + filepath.Join(h.Root, socket)
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

// errRefused is a server that ends the connection after it has seen who the client is.
var errRefused = errors.New("etcd refuses the client")

// refusal is why a handshake with a member fails that did not answer; nil when that cannot
// be told. A server refuses a client certificate after the client believes itself connected:
// a client that writes at once may be told of a broken pipe, one that only reads is told why.
// Etcd just hangs up on one whose names are not those of where it comes from.
func refusal(ctx context.Context, config *tls.Config, endpoint string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	kind, address := "tcp", endpoint
	if _, after, is := strings.Cut(endpoint, "://"); is {
		address = after
	}
	if strings.HasPrefix(endpoint, "unix") {
		kind = "unix"
	}
	conn, err := new(net.Dialer).DialContext(ctx, kind, address)
	if err != nil || config == nil {
		if err == nil {
			err = conn.Close() // nothing was sent
		} else if ctx.Err() != nil {
			err = nil
		}
		return err
	}
	defer func() { _ = conn.Close() }() // nothing was sent
	config = config.Clone()
	config.ServerName, _, _ = net.SplitHostPort(address)
	if kind == "unix" {
		config.ServerName = filepath.Base(address)
	}
	secured := tls.Client(conn, config)
	err = secured.HandshakeContext(ctx)
	shaken := err == nil
	if shaken {
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends the read below
		defer stop()
		_, err = secured.Read(make([]byte, 1))
	}
	var op *net.OpError
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.As(err, &op) && op.Op == "remote error":
		return fmt.Errorf("%w: %w", errRefused, err)
	case shaken && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)):
		return fmt.Errorf("%w: it closed the connection after the handshake", errRefused)
	case errors.Is(err, io.EOF):
		return nil
	}
	return err
}
