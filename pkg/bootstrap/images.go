package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

const (
	// ImagesStep is the name of the step that imports what is in images.archives.
	ImagesStep = "images"

	containerdSocket = "/run/containerd/containerd.sock"
	// importTimeout is for one archive: unpacking a large one takes minutes on a slow disk.
	importTimeout = 15 * time.Minute
	listTimeout   = time.Minute
	dialTimeout   = 5 * time.Second
)

// ImagesConfig is the section "images".
type ImagesConfig struct {
	// Archives are tar files of images (docker-archive, or an OCI layout that names its
	// images) on this host, for a cluster that reaches no registry.
	Archives []string `yaml:"archives"`
}

// Validate says what is wrong with the section.
func (c ImagesConfig) Validate() error {
	var errs []error
	seen := map[string]bool{}
	for i, path := range c.Archives {
		switch {
		case !filepath.IsAbs(path):
			errs = append(errs, fmt.Errorf("archives[%d]: %q is not an absolute path", i, path))
		case seen[filepath.Clean(path)]:
			errs = append(errs, fmt.Errorf("archives[%d]: %s is given twice", i, path))
		}
		seen[filepath.Clean(path)] = true
	}
	return errors.Join(errs...)
}

type images struct {
	host     *host.Host
	archives []string
	// installer is the name of the step that installs containerd, "" where none does.
	installer string
	ahead     *ahead
}

// Images makes the step "images": each image that an archive names is known to containerd,
// where the kubelet looks for it. Only names are compared: an archive that was replaced by one
// with other images under the same names is not imported again.
// installer is the name of the step that installs containerd, "" where none does.
func Images(h *host.Host, archives []string, installer string) step.Step {
	i := images{host: h, archives: archives, installer: installer, ahead: newAhead()}
	return step.Step{Name: ImagesStep, Check: i.check, Apply: i.apply}
}

func (i images) check(ctx context.Context) ([]step.Change, error) {
	missing, err := i.missing(ctx)
	if err != nil {
		return nil, err
	}
	var changes []step.Change
	for _, m := range missing {
		for _, image := range m.images {
			changes = append(changes, step.Change{Subject: "image " + image, Have: "absent", Want: "imported from " + m.archive})
		}
	}
	// Looked at last: ctr names an image before it has unpacked it, so that nothing may be missing
	// while an import goes on, but then it had begun before this.
	if have := i.ahead.unjoined(); have != "" {
		changes = append(changes, step.Change{Subject: "import that " + ImagesBeginStep + " began", Have: have, Want: "ended well"})
	}
	return changes, nil
}

func (i images) apply(ctx context.Context) error {
	if err := i.ahead.acquire(ctx); err != nil {
		return err
	}
	defer i.ahead.release()
	if err := i.ahead.take(); err != nil {
		return err
	}
	missing, err := i.missing(ctx)
	if err != nil {
		return err
	}
	return i.bring(ctx, missing)
}

// bring imports the archives that images are missing of.
func (i images) bring(ctx context.Context, missing []missingImages) error {
	if len(missing) == 0 {
		return nil
	}
	command, err := i.importCommand(ctx)
	if err != nil {
		return err
	}
	for _, m := range missing { // one after the other: each is limited by the disk
		path, err := i.host.Path(m.archive)
		if err != nil {
			return err
		}
		if _, err := i.ctr(ctx, importTimeout, append(command, path)...); err != nil {
			return fmt.Errorf("import %s: %w", m.archive, err)
		}
	}
	return nil
}

// importCommand is ctr's, up to the archive. From 1.7 on ctr hands the archive to the daemon's
// transfer service unless it is told "--local", which takes about two thirds of the time
// (2.4.2: 4.3 s of CPU for 300 MB, against 6.9 s); 1.6 knows no such flag.
func (i images) importCommand(ctx context.Context) ([]string, error) {
	help, err := i.ctr(ctx, listTimeout, "images", "import", "--help")
	if err != nil {
		return nil, err
	}
	command := []string{"images", "import"}
	if strings.Contains(string(help), "--local") {
		command = append(command, "--local")
	}
	return command, nil
}

type missingImages struct {
	archive string
	images  []string
}

// missing are the archives with images that containerd does not know.
func (i images) missing(ctx context.Context) ([]missingImages, error) {
	if len(i.archives) == 0 {
		return nil, nil
	}
	if i.host.Offline {
		return nil, step.Blocked{On: step.Boot}
	}
	if err := installedContainerd(i.host, i.installer); err != nil {
		return nil, err
	}
	var want []missingImages
	for _, path := range i.archives {
		names, err := i.names(path)
		if err != nil {
			return nil, err
		}
		want = append(want, missingImages{path, names})
	}
	if err := i.answers(ctx); err != nil {
		return nil, err
	}
	out, err := i.ctr(ctx, listTimeout, "images", "ls", "-q")
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for name := range strings.Lines(string(out)) {
		known[strings.TrimSpace(name)] = true
	}
	var missing []missingImages
	for _, w := range want {
		var names []string
		for _, name := range w.images {
			if !known[name] {
				names = append(names, name)
			}
		}
		if len(names) > 0 {
			missing = append(missing, missingImages{w.archive, names})
		}
	}
	return missing, nil
}

func (i images) names(path string) ([]string, error) {
	f, err := i.host.OpenTrusted(path) // the control plane is run from it
	if err != nil {
		return nil, fmt.Errorf("read image archive: %w", err)
	}
	names, err := archiveImages(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read image archive %s: %w", path, err)
	}
	return names, nil
}

func (i images) ctr(ctx context.Context, limit time.Duration, args ...string) ([]byte, error) {
	program, err := Program(i.host, "ctr")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return i.host.Run(ctx, program, append([]string{"--namespace", "k8s.io"}, args...)...)
}

// answers is Blocked where containerd does not run, which the step before mends. ctr would
// take ten seconds to find out.
func (i images) answers(ctx context.Context) error {
	path, err := i.host.Path(containerdSocket)
	if err != nil {
		return err
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("%w: %w", step.Blocked{On: "containerd"}, err)
	}
	return conn.Close()
}
