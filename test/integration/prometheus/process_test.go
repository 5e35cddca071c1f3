//go:build integration

package prometheus_test

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait: in CI a VM runs beside these programs.
const patience = 3 * time.Minute

// until waits for something to be so; why is what stands in its way.
func until(t *testing.T, what string, so func() (why error)) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		why := so()
		if why == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s: %v", patience, what, why)
		}
	}
}

type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(data []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(data)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start runs a program until stop is called or the test ends.
func start(t *testing.T, path string, args ...string) (stop func()) {
	t.Helper()
	var out output
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the child dies with the thread that started it
		started <- cmd.Start()
		_ = cmd.Wait() // how it ends is told by its output
		close(ended)
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	stop = func() {
		_ = cmd.Process.Kill() // it may have ended
		<-ended
	}
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("%s:\n%s", filepath.Base(path), out.String())
		}
	})
	return stop
}

// freePort is an address of loopback that nobody listens on now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// build is the agent's program.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nodeagent")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", path, checkout+"/cmd/nodeagent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build nodeagent: %v\n%s", err, out)
	}
	return path
}

// guide is a section of docs/monitoring.md: its files, by the path in their first line.
type guide struct {
	files map[string]string
}

func readGuide(t *testing.T, section string) guide {
	t.Helper()
	_, text, ok := strings.Cut(read(t, checkout+"/docs/monitoring.md"), "\n## "+section+"\n")
	if !ok {
		t.Fatalf("docs/monitoring.md has no section %q", section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	g := guide{files: map[string]string{}}
	for _, block := range regexp.MustCompile("(?s)\n```([a-z]*)\n(.*?)\n```\n").FindAllStringSubmatch(text, -1) {
		if block[1] == "sh" {
			continue
		}
		first, _, _ := strings.Cut(block[2], "\n")
		path, ok := strings.CutPrefix(first, "# ")
		if !ok || g.files[path] != "" {
			t.Fatalf("a file of section %q has no path of its own: %q", section, first)
		}
		g.files[path] = block[2] + "\n"
	}
	return g
}

// put writes the guide's file below root, with its words replaced. A word that is not there is a
// mistake.
func (g guide) put(t *testing.T, root, path string, replace map[string]string) {
	t.Helper()
	text := g.files[path]
	if text == "" {
		t.Fatalf("the guide has no %s", path)
	}
	for old, with := range replace {
		if !strings.Contains(text, old) {
			t.Fatalf("%s has no %q", path, old)
		}
		text = strings.ReplaceAll(text, old, with)
	}
	write(t, filepath.Join(root, path), text)
}
