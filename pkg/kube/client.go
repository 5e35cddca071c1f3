// Package kube talks to the Kubernetes API with a kubeconfig's credentials: is it ready, how
// is a node, apply these manifests. It has its own small structs instead of the API's types,
// since it needs few fields of few kinds and the whole set would double the program.
package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// requestTimeout bounds each single request: an API server that has stopped answering must not
// use up the time of whatever waits for it.
const requestTimeout = 30 * time.Second

// idleTimeout is when a connection that nobody uses is closed. It is shorter than the API
// server's own, and long enough for what is asked again every few seconds.
const idleTimeout = 30 * time.Second

// maxBody bounds what is read of an answer.
const maxBody = 8 << 20

// Client is access to one API server, for several callers at once. It holds the credentials that
// it was connected with, so it is made for a task, not for the life of a daemon: those of a
// renewed kubeconfig take a new one. Its connections close by themselves when they are idle.
type Client struct {
	http *http.Client
	base *url.URL
}

// Connect makes a client from a kubeconfig of the host, read below its Root, as are the files
// that it names. Nothing is sent. A kubeconfig that runs a program to sign in is refused, and
// only the kubeconfig's own proxy-url is used, never a proxy from the environment. No error
// quotes the file.
func Connect(h *host.Host, kubeconfig string) (*Client, error) {
	data, err := h.ReadFile(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("connect to the API: %w", err)
	}
	config, err := restConfig(h, filepath.Dir(kubeconfig), data)
	if err != nil {
		return nil, fmt.Errorf("connect to the API with %s: %w", kubeconfig, err)
	}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the API with %s: %w", kubeconfig, err)
	}
	transport, err := transport(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the API with %s: %w", kubeconfig, err)
	}
	return &Client{http: &http.Client{Transport: transport}, base: base}, nil
}

// transport keeps a connection for the requests that follow soon, and speaks HTTP/1.1: there, a
// request that runs out of its time takes its connection with it, where HTTP/2 would go on with
// one that leads nowhere.
func transport(config *rest.Config) (http.RoundTripper, error) {
	tls, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, err
	}
	return rest.HTTPWrappersForConfig(config, &http.Transport{
		TLSClientConfig: tls, Proxy: config.Proxy,
		TLSHandshakeTimeout: requestTimeout, IdleConnTimeout: idleTimeout,
	})
}

// Close closes the connections that are idle, for whoever does not want to leave them open a while.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Server is the URL of the API server.
func (c *Client) Server() string { return c.base.String() }

func restConfig(h *host.Host, dir string, data []byte) (*rest.Config, error) {
	// The parser's own message may quote the file, which holds a key.
	raw, err := clientcmd.Load(data)
	if err != nil {
		return nil, errors.New("is not a kubeconfig: compare it with the one in /etc/kubernetes/admin.conf")
	}
	for name, user := range raw.AuthInfos {
		if user.Exec != nil || user.AuthProvider != nil {
			return nil, fmt.Errorf("user %q signs in by running a program: use one with a certificate or a token", name)
		}
	}
	if err := embedFiles(h, dir, raw); err != nil {
		return nil, err
	}
	config, err := clientcmd.NewDefaultClientConfig(*raw, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, err
	}
	if config.Proxy == nil {
		config.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	}
	return config, nil
}

// embedFiles replaces the files that the current context names by what they hold: the library
// would look for them below "/", whatever the host's Root is.
func embedFiles(h *host.Host, dir string, raw *clientcmdapi.Config) error {
	current, ok := raw.Contexts[raw.CurrentContext]
	if !ok {
		return fmt.Errorf("it has no context %q, which is its current-context", raw.CurrentContext)
	}
	embed := func(data *[]byte, file *string) error {
		path := *file
		*file = ""
		if path == "" || len(*data) > 0 {
			return nil
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		var err error
		*data, err = h.ReadFile(path)
		return err
	}
	if cluster := raw.Clusters[current.Cluster]; cluster != nil {
		if err := embed(&cluster.CertificateAuthorityData, &cluster.CertificateAuthority); err != nil {
			return err
		}
	}
	user := raw.AuthInfos[current.AuthInfo]
	if user == nil {
		return nil
	}
	token := []byte(user.Token)
	err := errors.Join(
		embed(&user.ClientCertificateData, &user.ClientCertificate),
		embed(&user.ClientKeyData, &user.ClientKey),
		embed(&token, &user.TokenFile),
	)
	user.Token = strings.TrimSpace(string(token))
	return err
}

// StatusError is an answer of the API server that is not a success.
type StatusError struct {
	Code    int    // of HTTP
	Reason  string // "NotFound", "Forbidden"; empty when it was not the API that answered
	Message string
}

func (e *StatusError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("%d %s", e.Code, http.StatusText(e.Code))
	}
	return e.Message
}

// IsNotFound says whether the API server answered that there is no such thing.
func IsNotFound(err error) bool {
	var status *StatusError
	return errors.As(err, &status) && status.Code == http.StatusNotFound
}

// IsForbidden says whether the API server knows the client and does not let it do this.
func IsForbidden(err error) bool {
	var status *StatusError
	return errors.As(err, &status) && status.Code == http.StatusForbidden
}

// request is one call of the API.
type request struct {
	method, path string // path as escaped, from the root of the API
	query        url.Values
	accept       string // application/json when empty
	contentType  string
	body         []byte
}

// do sends a request and returns the body of a successful answer, else a *StatusError or the
// transport's error.
func (c *Client) do(ctx context.Context, r request) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	target := strings.TrimSuffix(c.base.String(), "/") + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	if r.accept == "" {
		r.accept = "application/json"
	}
	req.Header.Set("Accept", r.accept)
	req.Header.Set("User-Agent", "nodeagent")
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxBody {
		return nil, fmt.Errorf("the answer is larger than %d bytes", maxBody)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return body, statusError(resp.StatusCode, body)
	}
	return body, nil
}

func statusError(code int, body []byte) *StatusError {
	var status struct{ Kind, Reason, Message string }
	if err := json.Unmarshal(body, &status); err != nil || status.Kind != "Status" {
		return &StatusError{Code: code} // a proxy's page, or plain text
	}
	return &StatusError{Code: code, Reason: status.Reason, Message: status.Message}
}

// get decodes what is at path into out.
func (c *Client) get(ctx context.Context, r request, out any) error {
	r.method = http.MethodGet
	body, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("decode the answer: %w", err)
	}
	return nil
}
