package kube

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// answerWithin is how long AnswersTLS waits for an answer.
const answerWithin = 3 * time.Second

// AnswersTLS says whether a TLS server answers at host:port within three seconds. Its
// certificate is not verified, and nothing is sent after the handshake: what matters is that
// somebody is there. A server that refuses the handshake with a TLS alert is there as well.
// A connection that is refused, times out or is closed (a load balancer without servers), and
// a host that is not in the DNS, are "no". It is an error when that cannot be told: a
// malformed address, a DNS server that does not answer, ctx ended.
func AnswersTLS(ctx context.Context, hostport string) (bool, error) {
	name, port, err := net.SplitHostPort(hostport)
	if err == nil && (name == "" || port == "") {
		err = errors.New("a host and a port are needed")
	}
	if err != nil {
		return false, fmt.Errorf("look for a TLS server at %q: %w", hostport, err)
	}
	within, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()

	var dialer net.Dialer
	conn, err := dialer.DialContext(within, "tcp", hostport)
	if err == nil {
		defer func() { _ = conn.Close() }()
		if greets(within, conn, name) {
			return true, nil
		}
	}
	var dns *net.DNSError
	switch {
	case ctx.Err() != nil:
		return false, fmt.Errorf("look for a TLS server at %q: %w", hostport, context.Cause(ctx))
	case errors.As(err, &dns) && !dns.IsNotFound:
		return false, fmt.Errorf("look for a TLS server at %q: %w", hostport, err)
	}
	return false, nil
}

// greets says whether the other side speaks TLS, as far as an attempt at a handshake shows.
func greets(ctx context.Context, conn net.Conn, name string) bool {
	hello := false
	client := tls.Client(conn, &tls.Config{
		ServerName:         name,
		MinVersion:         tls.VersionTLS10, //nolint:gosec // an old server is a server
		InsecureSkipVerify: true,             //nolint:gosec // nothing is sent, and nothing it says is believed
		// Called once the server has said hello and shown its certificate, whatever comes of
		// the handshake then.
		VerifyConnection: func(tls.ConnectionState) error { hello = true; return nil },
	})
	err := client.HandshakeContext(ctx)
	if err == nil || hello {
		return true
	}
	var (
		record tls.RecordHeaderError
		op     *net.OpError
		broken net.Error
	)
	switch {
	case errors.As(err, &record): // it speaks something else
		return false
	case errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error"): // a TLS alert, sent or received
		return true
	case errors.As(err, &broken), errors.Is(err, io.EOF), ctx.Err() != nil:
		return false
	}
	return true // crypto/tls disliked what it read, so there was TLS to read
}
