package s3

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
	"unicode"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"
)

// material is what is read from files for a client.
type material struct{ access, secret, ca string }

// defaultRegion is what servers without regions expect to be asked for.
const defaultRegion = "us-east-1"

const maxCA = 1 << 20

// connected returns a client with what the files hold now, so that keys can be rotated under a
// running daemon, and in the middle of a long upload.
func (s *Store) connected() (*minio.Core, error) {
	now, err := s.read()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil && s.with == now {
		return s.client, nil
	}
	client, transport, err := s.dial(now)
	if err != nil {
		return nil, err
	}
	s.close()
	s.client, s.with, s.close = client, now, transport.CloseIdleConnections
	return client, nil
}

// read reads the files. One that is not there must not look like an object that is not there: its
// error is of no kind.
func (s *Store) read() (material, error) {
	access, err := s.keyIn("accessKeyFile", s.cfg.AccessKeyFile)
	if err != nil {
		return material{}, err
	}
	secret, err := s.keyIn("secretKeyFile", s.cfg.SecretKeyFile)
	if err != nil {
		return material{}, err
	}
	var ca []byte
	if s.cfg.CAFile != "" {
		if ca, err = s.host.ReadTrusted(s.cfg.CAFile, maxCA); err != nil {
			return material{}, errors.New("caFile: " + err.Error())
		}
	}
	return material{access, secret, string(ca)}, nil
}

func (s *Store) keyIn(field, source string) (string, error) {
	data, err := s.host.ReadSecret(source)
	if err != nil {
		return "", errors.New(field + ": " + err.Error())
	}
	for _, b := range data {
		if b >= 0x7f || unicode.IsSpace(rune(b)) || unicode.IsControl(rune(b)) {
			return "", fmt.Errorf("%s: %s holds more than a key: it is to be one line without spaces", field, source)
		}
	}
	return string(data), nil
}

// dial makes a client; nothing is connected to yet. The library tries nothing twice: it would send
// the rest of a body that an earlier try may still be reading.
func (s *Store) dial(with material) (*minio.Core, *http.Transport, error) {
	transport, err := s.transport(with.ca)
	if err != nil {
		return nil, nil, err
	}
	region := s.cfg.Region
	if region == "" {
		region = s3utils.GetRegionFromURL(*s.endpoint)
	}
	if region == "" {
		region = defaultRegion // else every first request would be one for the bucket's region
	}
	lookup := minio.BucketLookupDNS
	if s.cfg.PathStyle {
		lookup = minio.BucketLookupPath
	}
	client, err := minio.NewCore(s.endpoint.Host, &minio.Options{
		Creds:  credentials.NewStaticV4(with.access, with.secret, ""),
		Secure: s.endpoint.Scheme == "https", Transport: transport, Region: region, BucketLookup: lookup,
		MaxRetries: 1,
	})
	if err != nil {
		return nil, nil, err
	}
	client.SetS3EnableDualstack(false) // the endpoint is the one that was configured
	return client, transport, nil
}

// idle is for how long a connection is kept for the next object.
const idle = 10 * time.Second

func (s *Store) transport(ca string) (*http.Transport, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.cfg.CAFile != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, fmt.Errorf("caFile: %s holds no certificate", s.cfg.CAFile)
		}
	}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: s.Patience.Connect}).DialContext,
		TLSHandshakeTimeout: s.Patience.Connect,
		TLSClientConfig:     config,
		MaxIdleConnsPerHost: threads,
		IdleConnTimeout:     idle,
		DisableCompression:  true, // ranges and sizes are those of the object
		WriteBufferSize:     64 << 10, ReadBufferSize: 64 << 10,
		MaxResponseHeaderBytes: 256 << 10,
	}, nil
}
