package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// demo is the show. It lasts for stay, or longer if the show does, or until ctx is done.
func demo(ctx context.Context, binary string, stay time.Duration, out *lines) (err error) {
	began := time.Now()
	binary, err = filepath.Abs(binary)
	if err != nil {
		return err
	}
	if _, err := os.Stat(binary); err != nil {
		return fmt.Errorf("find the program: %w; `make build` makes it", err)
	}
	script, cancel := context.WithTimeout(ctx, scriptTimeout)
	defer cancel()

	m, err := newMachine(script, began)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, m.remove())
		if err == nil {
			out.printf("\nThe end. The scratch machine is removed, nothing else was touched.")
		}
	}()
	out.printf("A scratch machine. It has a kubeadm control plane's certificates, one of which expires soon,")
	out.printf("a real etcd on port %s of loopback, and swap in its fstab. This is its root:", m.member.Port)
	out.printf("$ ROOT=%s", m.root)
	a := agent{binary: binary, root: m.root, out: out}
	if err := a.prepare(script, m); err != nil {
		return err
	}

	out.printf("\nThe daemon. It finds etcd by its static pod manifest and takes a snapshot every five seconds.")
	d, err := a.start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	if err := a.watch(script, m, d); err != nil {
		return err
	}
	return rest(ctx, d, began.Add(stay), out)
}

// prepare is the machine made as its configuration says.
func (a agent) prepare(ctx context.Context, m *machine) error {
	a.out.printf("\nIts configuration:")
	a.out.printf("$ cat $ROOT/etc/nodeagent/config.yaml")
	config, err := os.ReadFile(filepath.Join(a.root, "etc/nodeagent/config.yaml"))
	if err != nil {
		return err
	}
	a.out.print("    ", string(config))
	a.out.printf("\nWhat would change? This exits 2, since something would.")
	if err := a.show(ctx, 2, "plan"); err != nil {
		return err
	}
	a.out.printf("\nMake it so. What needs a running machine waits for its boot.")
	if err := a.show(ctx, 0, "apply"); err != nil {
		return err
	}
	a.out.printf("\nAnd now? This exits 0.")
	if err := a.show(ctx, 0, "plan"); err != nil {
		return err
	}
	out, err := a.ask(ctx, "version", "-o", "json")
	if err != nil {
		return err
	}
	var build struct {
		Version string `json:"version"`
	}
	if err := json.Unmarshal(out, &build); err != nil {
		return fmt.Errorf("read version: %w", err)
	}
	return m.complete(build.Version)
}

// watch is what the daemon does, and how that is seen.
func (a agent) watch(ctx context.Context, m *machine, d *daemon) error {
	url := "http://" + m.listen
	err := d.wait(ctx, "the daemon to answer", func(ctx context.Context) (bool, error) {
		_, err := get(ctx, url+"/readyz")
		return err == nil, err
	})
	if err != nil {
		return err
	}
	first, err := a.snapshots(ctx, d, 1, 0)
	if err != nil {
		return err
	}
	a.out.printf("\nThree keys are written to etcd. The next snapshot has them.")
	if err := m.put(ctx, "/demo/one", "/demo/two", "/demo/three"); err != nil {
		return err
	}
	if _, err := a.snapshots(ctx, d, 2, first+3); err != nil {
		return err
	}
	if err := a.show(ctx, 0, "snapshot", "list"); err != nil {
		return err
	}
	a.out.printf("\nIs the newest good? It is read back and hashed, and so is the trailer that etcd wrote.")
	if err := a.show(ctx, 0, "snapshot", "verify"); err != nil {
		return err
	}
	if err := a.drift(ctx, m, d); err != nil {
		return err
	}
	a.out.printf("\nOne page that says what is wrong, and what to type. This exits 2: a certificate ends soon.")
	if err := a.show(ctx, 2, "status"); err != nil {
		return err
	}
	a.out.printf("\nMetrics, some of them.")
	if err := a.showMetrics(ctx, d, url+"/metrics"); err != nil {
		return err
	}
	return a.showPage(ctx, url)
}

// drift is something of the agent's changed by hand, and mended by the daemon.
func (a agent) drift(ctx context.Context, m *machine, d *daemon) error {
	a.out.printf("\nSomebody edits a file of the agent's. Within five seconds the daemon mends it, and says so.")
	a.out.printf("$ sed -i '/ip_forward/s/1/0/' $ROOT%s", sysctls)
	if err := m.disturb(); err != nil {
		return err
	}
	err := d.wait(ctx, "the drift to be mended", func(ctx context.Context) (bool, error) {
		body, err := get(ctx, "http://"+m.listen+"/metrics")
		return mended.MatchString(body), err
	})
	if err != nil {
		return err
	}
	forwards, err := m.forwards()
	if err == nil && !forwards {
		err = fmt.Errorf("%s is not as it was", sysctls)
	}
	return err
}

// mended is how the agent counts what it has put right.
var mended = regexp.MustCompile(`(?m)^nodeagent_drift_corrections_total\{step="kernel/sysctl"\} [1-9]`)

// title is what a page calls itself.
var title = regexp.MustCompile(`<title>([^<]+)</title>`)

// showPage says where the page is, and its verdict.
func (a agent) showPage(ctx context.Context, url string) error {
	body, err := get(ctx, url+"/")
	if err != nil {
		return err
	}
	found := title.FindStringSubmatch(body)
	if found == nil {
		return errors.New("the page has no title")
	}
	a.out.printf("\nThe same page for a browser: %s/", url)
	a.out.printf("    %s", found[1])
	return nil
}

// snapshots waits for so many snapshots, the newest with so many keys, and returns how many
// keys that has.
func (a agent) snapshots(ctx context.Context, d *daemon, count, keys int) (int, error) {
	var list []struct {
		Snapshot struct {
			Keys int `json:"keys"`
		} `json:"snapshot"`
	}
	err := d.wait(ctx, fmt.Sprintf("%d snapshots, the newest of %d keys or more", count, keys), func(ctx context.Context) (bool, error) {
		out, err := a.ask(ctx, "snapshot", "list", "-o", "json")
		if err != nil {
			return false, err
		}
		if err := json.Unmarshal(out, &list); err != nil {
			return false, fmt.Errorf("read snapshot list: %w", err)
		}
		return len(list) >= count && list[0].Snapshot.Keys >= keys, nil
	})
	if err != nil {
		return 0, err
	}
	return list[0].Snapshot.Keys, nil
}

// shown are the metrics that the demo picks out.
var shown = regexp.MustCompile(`(?m)^nodeagent_(certificate_not_after_timestamp_seconds\{.*apiserver\.crt|etcd_snapshot|job_runs_total\{job_name="snapshot"|step_clean\{step="kernel).*\n`)

func (a agent) showMetrics(ctx context.Context, d *daemon, url string) error {
	a.out.printf("$ curl -s %s | grep ...", url)
	var found []string
	// The daemon counts a snapshot a moment after it is in the list.
	err := d.wait(ctx, "the metrics of certificates and snapshots", func(ctx context.Context) (bool, error) {
		body, err := get(ctx, url)
		found = shown.FindAllString(body, -1)
		text := strings.Join(found, "")
		return strings.Contains(text, "apiserver.crt") && strings.Contains(text, "nodeagent_etcd_snapshots{") &&
			strings.Contains(text, "step_clean"), err
	})
	if err != nil {
		return err
	}
	a.out.print("    ", strings.Join(found, ""))
	return nil
}

// rest lets the audience look around.
func rest(ctx context.Context, d *daemon, until time.Time, out *lines) error {
	left := time.Until(until)
	if left > 0 {
		out.printf("The daemon goes on for %s; Ctrl-C ends it sooner.", left.Round(time.Second))
	}
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(left):
		return nil
	case <-d.done:
		return errors.New("the daemon has ended")
	}
}
