package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/certs/certstest"
)

// hash is that of "open sesame", of the least cost.
const hash = "$2a$04$dNM5hMkAD6ewDFY41QRuuOnITsiE7ndX0P/feQ1B6okw.VSkQI73y"

// pki makes a PKI and returns its directory, and a client that trusts its authority and shows the
// named certificate, unless the name is "".
func pki(t *testing.T, root string) (dir string, client func(certificate string) *http.Client) {
	t.Helper()
	if err := certstest.Write(root, certstest.Options{Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(root, certstest.Dir, "pki")
	return dir, func(certificate string) *http.Client {
		roots := x509.NewCertPool()
		ca, err := os.ReadFile(dir + "/ca.crt")
		if err != nil || !roots.AppendCertsFromPEM(ca) {
			t.Fatal("no ca.crt", err)
		}
		config := &tls.Config{RootCAs: roots}
		if certificate != "" {
			pair, err := tls.LoadX509KeyPair(dir+"/"+certificate+".crt", dir+"/"+certificate+".key")
			if err != nil {
				t.Fatal(err)
			}
			config.Certificates = []tls.Certificate{pair}
		}
		return &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	}
}

func webConfig(t *testing.T, file, text string) string {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const serverPair = "tls_server_config:\n  cert_file: etc/kubernetes/pki/apiserver.crt\n  key_file: etc/kubernetes/pki/apiserver.key\n"

// refused wants a client to get no answer over HTTP at all.
func refused(t *testing.T, client *http.Client, url string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := client.Do(req); err == nil {
		_ = resp.Body.Close()
		t.Errorf("%s: %s, want no answer", url, resp.Status)
	}
}

// An exporter-toolkit file gives TLS with a client's certificate, and basic auth: on every page.
func TestWebConfig(t *testing.T) {
	root := t.TempDir()
	_, client := pki(t, root)
	config := webConfig(t, filepath.Join(root, "web.yaml"), serverPair+
		"  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: etc/kubernetes/pki/ca.crt\nbasic_auth_users:\n  prometheus: "+hash+"\n")
	address, stop := serve(t, testServer(t), config)
	for _, page := range []string{"/metrics", "/", "/healthz", "/readyz"} {
		for _, test := range []struct {
			user, password string
			code           int
		}{{"", "", 401}, {"prometheus", "guess", 401}, {"somebody", "open sesame", 401}, {"prometheus", "open sesame", 200}} {
			if code, _, body := get(t, client("apiserver-kubelet-client"), "https://"+address+page, test.user, test.password); code != test.code {
				t.Errorf("%s %q %q: %d, want %d: %s", page, test.user, test.password, code, test.code, body)
			}
		}
		refused(t, client(""), "https://"+address+page)
		refused(t, client("front-proxy-client"), "https://"+address+page) // of another authority
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// With TLS alone nobody is asked who he is, and nothing is served without it.
func TestTLSOnly(t *testing.T) {
	root := t.TempDir()
	_, client := pki(t, root)
	address, _ := serve(t, testServer(t), webConfig(t, filepath.Join(root, "web.yaml"), serverPair))
	if code, _, body := get(t, client(""), "https://"+address+"/metrics", "", ""); code != 200 || !strings.Contains(body, "nodeagent_test 0") {
		t.Errorf("over TLS: %d %s", code, body)
	}
	if code, _, body := get(t, &http.Client{}, "http://"+address+"/metrics", "", ""); code != 400 || strings.Contains(body, "nodeagent_test") {
		t.Errorf("without TLS: %d %s", code, body)
	}
	refused(t, &http.Client{}, "https://"+address+"/metrics") // it does not trust the authority
}

// Certificates and the file itself are taken as they lie there at each connection.
func TestRenewedOnDisk(t *testing.T) {
	root := t.TempDir()
	dir, client := pki(t, root)
	config := webConfig(t, filepath.Join(root, "web.yaml"), serverPair)
	address, _ := serve(t, testServer(t), config)
	url := "https://" + address + "/metrics"
	before := client("")
	if code, _, _ := get(t, before, url, "", ""); code != 200 {
		t.Fatal(code)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	_, client = pki(t, root) // another authority, and certificates of it
	if code, _, _ := get(t, client(""), url, "", ""); code != 200 {
		t.Errorf("with the new authority: %d", code)
	}
	refused(t, before, url)
	webConfig(t, config, serverPair+"basic_auth_users:\n  prometheus: "+hash+"\n")
	if code, _, _ := get(t, client(""), url, "", ""); code != 401 {
		t.Errorf("with a password asked for: %d", code)
	}
}

// The key that web.yaml names is a secret as web.yaml is, and nobody else has put the certificates
// there: else they would choose who is let in.
func TestFilesOfWebConfigAreHeldToTheRule(t *testing.T) {
	const clients = serverPair + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: etc/kubernetes/pki/ca.crt\n"
	for name, test := range map[string]struct {
		spoil func(root, pki string) error
		want  string // "" for what is fine
	}{
		"as they should be": {func(_, _ string) error { return nil }, ""},
		"key for its group": {func(_, pki string) error { return os.Chmod(pki+"/apiserver.key", 0o640) },
			"tls_server_config.key_file: PKI/apiserver.key is not safe to go by: others can read or write it (mode 0640); chmod 0600 PKI/apiserver.key"},
		"key that is read only": {func(_, pki string) error { return os.Chmod(pki+"/apiserver.key", 0o400) }, ""},
		"certificate that others can write": {func(_, pki string) error { return os.Chmod(pki+"/apiserver.crt", 0o666) },
			"tls_server_config.cert_file: PKI/apiserver.crt is not safe to go by: others can write it"},
		"authority that others can write": {func(_, pki string) error { return os.Chmod(pki+"/ca.crt", 0o666) },
			"tls_server_config.client_ca_file: PKI/ca.crt is not safe to go by: others can write it"},
		"directory that others can write": {func(_, pki string) error { return os.Chmod(pki, 0o777) },
			"tls_server_config.key_file: directory PKI is not safe to go by: others can replace what lies in it"},
		"link in one": {func(root, pki string) error {
			return errors.Join(os.Rename(pki, root+"/pki"), os.Symlink(root+"/pki", pki), os.Chmod(filepath.Dir(pki), 0o777))
		}, "etc/kubernetes is not safe to go by: others can replace what lies in it"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			dir, _ := pki(t, root)
			config := webConfig(t, filepath.Join(root, "web.yaml"), clients)
			if err := test.spoil(root, dir); err != nil {
				t.Fatal(err)
			}
			err := CheckWebConfig(config)
			if test.want == "" && err != nil {
				t.Error(err)
			}
			if want := strings.ReplaceAll(test.want, "PKI", dir); test.want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%v, want %q", err, want)
			}
		})
	}
}

// lines is a log for several goroutines.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(data []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(data)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// A file that breaks while the server runs is told in the log at each request, without a word of
// what is in it, and lets nobody in.
func TestBrokenWhileRunning(t *testing.T) {
	for name, good := range map[string]string{"with TLS": serverPair, "without TLS": "basic_auth_users: {prometheus: " + hash + "}\n"} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			_, client := pki(t, root)
			config := webConfig(t, filepath.Join(root, "web.yaml"), good)
			s := testServer(t)
			var log lines
			s.Log = slog.New(slog.NewTextHandler(&log, nil))
			address, stop := serve(t, s, config)
			// It serves by now: the file is looked at before.
			if name == "with TLS" {
				get(t, client(""), "https://"+address+"/metrics", "", "")
			} else {
				get(t, &http.Client{}, "http://"+address+"/metrics", "", "")
			}
			webConfig(t, config, "basic_auth_users: hunter2\n")
			if name == "with TLS" {
				refused(t, client(""), "https://"+address+"/metrics")
			} else if code, _, body := get(t, &http.Client{}, "http://"+address+"/metrics", "prometheus", "open sesame"); code != 500 || strings.Contains(body, "nodeagent_test") {
				t.Errorf("%d %s", code, body)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			if out := log.String(); strings.Contains(out, "hunter2") || !strings.Contains(out, "cannot unmarshal !!str `...` into") {
				t.Errorf("the log:\n%s", out)
			}
		})
	}
}

// No complaint quotes a secret, wherever it was put.
func TestSecretsAreNotQuoted(t *testing.T) {
	const canary = "hunter2"
	for _, text := range []string{
		"basic_auth_users: {a: hunter2}\n", "basic_auth_users: hunter2\n", "basic_auth_users: [hunter2]\n", "hunter2\n",
		"tls_server_config: hunter2\n", "tls_server_config: {cert: hunter2, key: hunter2}\n", "tls_server_config: {key: [hunter2]}\n",
		"basic_auth_users: {a: *hunter2}\n", "basic_auth_users: 'hun`hunter2'\n", "http_server_config: {http2: hunter2}\n",
		"rate_limit: {burst: hunter2}\nbasic_auth_users: hunter2\n",
	} {
		err := CheckWebConfig(webConfig(t, filepath.Join(t.TempDir(), "web.yaml"), text))
		if err == nil || strings.Contains(err.Error(), canary) || !strings.Contains(err.Error(), "web.yaml: ") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// There is no profiler: it would show memory, and keys are in it.
func TestNoProfiler(t *testing.T) {
	address, _ := serve(t, testServer(t), "")
	for _, page := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline", "/debug/vars", "/debug/requests"} {
		if code, _, body := get(t, &http.Client{}, "http://"+address+page, "", ""); code != http.StatusNotFound {
			t.Errorf("%s: %d %s", page, code, body)
		}
	}
}

func TestBrokenWebConfig(t *testing.T) {
	for name, text := range map[string]string{"not there": "", "plain password": "basic_auth_users: {prometheus: secret}\n", "unknown key": "tls: {}\n", "no certificate": "tls_server_config: {cert_file: /none, key_file: /none}\n"} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "web.yaml")
			if text != "" {
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			l, err := Listen(t.Context(), "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err = testServer(t).Serve(ctx, l, file)
			if err == nil || ctx.Err() != nil || !strings.HasPrefix(err.Error(), "serve metrics: "+file+": ") {
				t.Errorf("served with a broken web.yaml: %v", err)
			}
			if again, err := Listen(t.Context(), l.Addr().String()); err != nil {
				t.Errorf("the port is not given back: %v", err)
			} else {
				_ = again.Close()
			}
		})
	}
}
