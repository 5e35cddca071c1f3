//go:build integration

package page

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"syscall"
	"testing"
	"time"
)

// browser is a headless Chromium behind chromedriver, which is spoken to in W3C WebDriver.
type browser struct {
	t       *testing.T
	session string // its URL
}

// flags keep it to itself: nothing is fetched that the test did not ask for. With its driver the
// browser ends, since the pipe does.
var flags = []string{
	"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
	"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
	"--remote-debugging-pipe", "--no-proxy-server", "--hide-scrollbars", "--lang=en-US",
}

// command is a child that ends with the test, however that ends.
func command(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v; `make tools` installs it", err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

var started = regexp.MustCompile(`started successfully on port (\d+)`)

func openBrowser(t *testing.T) *browser {
	t.Helper()
	driver := command(t, "chromedriver", "--port=0")
	out, err := driver.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := driver.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-driver.Process.Pid, syscall.SIGKILL) // and the browser, if it is left
		_ = driver.Wait()
	})
	lines := bufio.NewScanner(out)
	port := ""
	for port == "" && lines.Scan() {
		if m := started.FindStringSubmatch(lines.Text()); m != nil {
			port = m[1]
		}
	}
	if port == "" {
		t.Fatal("chromedriver has not started")
	}
	go func() {
		for lines.Scan() { // so that it never waits for a reader
		}
	}()
	b := &browser{t: t, session: "http://127.0.0.1:" + port}
	var made struct {
		SessionID string `json:"sessionId"`
	}
	b.call(http.MethodPost, "/session", map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
		"browserName":        "chrome",
		"goog:chromeOptions": map[string]any{"args": append(flags, "--user-data-dir="+t.TempDir())},
		"goog:loggingPrefs":  map[string]string{"browser": "ALL"},
	}}}, &made)
	b.session += "/session/" + made.SessionID
	t.Cleanup(func() { b.call(http.MethodDelete, "", nil, nil) })
	return b
}

// callTimeout is for a start of the browser on a machine that is busy with something else.
const callTimeout = time.Minute

func (b *browser) call(method, path string, body, result any) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.t.Context()), callTimeout)
	defer cancel()
	if body == nil {
		body = struct{}{}
	}
	data, err := json.Marshal(body)
	if err != nil {
		b.t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(ctx, method, b.session+path, bytes.NewReader(data))
	if err != nil {
		b.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		b.t.Fatal(err)
	}
	defer response.Body.Close()
	var reply struct {
		Value json.RawMessage `json:"value"`
	}
	if err := json.NewDecoder(response.Body).Decode(&reply); err != nil {
		b.t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		b.t.Fatalf("%s %s: %s: %s", method, path, response.Status, reply.Value)
	}
	if result != nil {
		if err := json.Unmarshal(reply.Value, result); err != nil {
			b.t.Fatalf("%s %s: %v: %s", method, path, err, reply.Value)
		}
	}
}

func (b *browser) open(url string) {
	b.call(http.MethodPost, "/url", map[string]string{"url": url}, nil)
}

// devtools runs a command of the DevTools protocol.
func (b *browser) devtools(name string, params map[string]any, result any) {
	b.t.Helper()
	b.call(http.MethodPost, "/goog/cdp/execute", map[string]any{"cmd": name, "params": params}, result)
}

// element is the path of the one that a CSS selector finds first.
func (b *browser) element(selector string) string {
	b.t.Helper()
	var found map[string]string
	b.call(http.MethodPost, "/element", map[string]string{"using": "css selector", "value": selector}, &found)
	for _, id := range found {
		return "/element/" + id
	}
	b.t.Fatalf("no element %s", selector)
	return ""
}

func (b *browser) text(selector string) (text string) {
	b.t.Helper()
	b.call(http.MethodGet, b.element(selector)+"/text", nil, &text)
	return text
}

func (b *browser) shown(selector string) (shown bool) {
	b.t.Helper()
	b.call(http.MethodGet, b.element(selector)+"/displayed", nil, &shown)
	return shown
}

func (b *browser) click(selector string) {
	b.t.Helper()
	b.call(http.MethodPost, b.element(selector)+"/click", nil, nil)
}

// evaluate is a JavaScript expression in the page, which the page's policy does not concern.
func evaluate[T any](b *browser, expression string) (value T) {
	b.t.Helper()
	b.call(http.MethodPost, "/execute/sync", map[string]any{"script": "return " + expression, "args": []any{}}, &value)
	return value
}

// complaints are what the browser's console holds: errors, warnings, violations of the policy.
func (b *browser) complaints() (out []string) {
	b.t.Helper()
	var entries []struct{ Level, Message string }
	b.call(http.MethodPost, "/se/log", map[string]string{"type": "browser"}, &entries)
	for _, e := range entries {
		out = append(out, fmt.Sprintf("%s: %s", e.Level, e.Message))
	}
	return out
}

func (b *browser) screenshot() []byte {
	b.t.Helper()
	var text string
	b.call(http.MethodGet, "/screenshot", nil, &text)
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		b.t.Fatal(err)
	}
	return data
}
