package bootstrap

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/step/steptest"
)

type member struct{ name, data string }

func tarOf(t testing.TB, members ...member) string {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, m := range members {
		if err := w.WriteHeader(&tar.Header{Name: m.name, Mode: 0o644, Size: int64(len(m.data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

func dockerArchive(t testing.TB, tags ...string) string {
	layer := member{"layer.tar", strings.Repeat("x", 100_000)}
	return tarOf(t, layer, member{"manifest.json", `[{"Config":"c","RepoTags":["` + strings.Join(tags, `","`) + `"],"Layers":["layer.tar"]}]`})
}

const ociIndex = `{"schemaVersion":2,"manifests":[{"digest":"sha256:0","annotations":{"io.containerd.image.name":"registry.k8s.io/etcd:3.6.8-0","org.opencontainers.image.ref.name":"3.6.8-0"}}]}`

func TestArchiveImages(t *testing.T) {
	for _, tt := range []struct {
		name, data string
		want       []string
		err        string
	}{
		{name: "docker", data: dockerArchive(t, "registry.k8s.io/pause:3.10.2", "busybox"), want: []string{"docker.io/library/busybox:latest", "registry.k8s.io/pause:3.10.2"}},
		{name: "several images", data: tarOf(t, member{"./manifest.json", `[{"RepoTags":["b/c:1"]},{"RepoTags":null},{"RepoTags":["b/c:1","localhost/x:2"]}]`}), want: []string{"docker.io/b/c:1", "localhost/x:2"}},
		{name: "OCI", data: tarOf(t, member{"oci-layout", "{}"}, member{"index.json", ociIndex}), want: []string{"registry.k8s.io/etcd:3.6.8-0"}},
		{name: "both", data: tarOf(t, member{"manifest.json", `[{"RepoTags":["other:1"]}]`}, member{"index.json", ociIndex}), want: []string{"registry.k8s.io/etcd:3.6.8-0"}},
		{name: "bare tag", data: tarOf(t, member{"index.json", `{"manifests":[{"annotations":{"org.opencontainers.image.ref.name":"v1"}}]}`}), err: "names no image"},
		{name: "no tags", data: tarOf(t, member{"manifest.json", `[{"RepoTags":[]}]`}), err: "names no image"},
		{name: "something else", data: tarOf(t, member{"etc/passwd", "root"}), err: "neither index.json nor manifest.json"},
		{name: "bad JSON", data: tarOf(t, member{"manifest.json", "{"}), err: "read manifest.json"},
		{name: "huge index", data: tarOf(t, member{"manifest.json", strings.Repeat(" ", maxArchiveIndex+1)}), err: "larger than"},
		{name: "empty", data: "", err: "is empty"},
		{name: "cut off", data: dockerArchive(t, "a:1")[:50_000], err: "read tar: is cut off"},
		{name: "gzip", data: "\x1f\x8b\x08\x00\x00", err: "is compressed"},
		{name: "zstd", data: "\x28\xb5\x2f\xfd\x00", err: "is compressed"},
		{name: "no tar", data: strings.Repeat("text ", 1000), err: "read tar"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := archiveImages(strings.NewReader(tt.data))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, %v", got, err)
				}
				return
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
				t.Errorf("%v %s", err, diff)
			}
		})
	}
}

// An archive that was cut off anywhere, between two members too, is known for it: the images that
// it names are not all in it.
func TestArchiveCutOffAnywhere(t *testing.T) {
	for name, whole := range map[string]string{
		"docker": tarOf(t, member{"manifest.json", `[{"RepoTags":["a:1"]}]`}, member{"empty", ""}, member{"layer.tar", strings.Repeat("\x00", 3000)}),
		"OCI":    tarOf(t, member{"index.json", ociIndex}, member{"blobs/sha256/0", strings.Repeat("x", 1024)}),
	} {
		if _, err := archiveImages(strings.NewReader(whole)); err != nil {
			t.Fatal(err)
		}
		end := len(whole) - 2*tarBlock
		for at := range end + 1 {
			if names, err := archiveImages(strings.NewReader(whole[:at])); err == nil {
				t.Errorf("%s, cut off at %d of %d: %v", name, at, len(whole), names)
			}
		}
	}
}

// Of an archive of many GB hardly more than the headers is read.
func TestArchiveIsSoughtOver(t *testing.T) {
	r := &countingReader{Reader: *strings.NewReader(tarOf(t, member{"layer", strings.Repeat("x", 8<<20)}, member{"manifest.json", `[{"RepoTags":["a:1"]}]`}))}
	if names, err := archiveImages(r); err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	if r.read > 64<<10 {
		t.Errorf("read %d bytes", r.read)
	}
}

type countingReader struct {
	strings.Reader
	read int
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.read += n
	return n, err
}

func TestFullName(t *testing.T) {
	for name, want := range map[string]string{
		"busybox": "docker.io/library/busybox:latest", "a/b:1": "docker.io/a/b:1", "docker.io/busybox": "docker.io/library/busybox:latest",
		"localhost/a": "localhost/a:latest", "host:5000/a": "host:5000/a:latest", "registry.k8s.io/coredns/coredns:v1.14.2": "registry.k8s.io/coredns/coredns:v1.14.2",
		"r.io/a@sha256:00": "r.io/a@sha256:00",
	} {
		if got := fullName(name); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestImagesConfig(t *testing.T) {
	if err := (ImagesConfig{Archives: []string{"/a.tar", "/b.tar"}}).Validate(); err != nil {
		t.Error(err)
	}
	err := ImagesConfig{Archives: []string{"a.tar", "/b.tar", "/x/../b.tar"}}.Validate()
	want := "archives[0]: \"a.tar\" is not an absolute path\narchives[2]: /x/../b.tar is given twice"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

// fakeCtr is a containerd as ctr sees it.
type fakeCtr struct {
	old      bool // 1.6, which knows no --local
	images   []string
	imported []string
	err      error
}

func (f *fakeCtr) exec(_ context.Context, c host.Command) ([]byte, error) {
	if f.err != nil {
		return nil, f.err
	}
	switch {
	case slices.Equal(c.Args, []string{"--namespace", "k8s.io", "images", "ls", "-q"}):
		return []byte(strings.Join(f.images, "\n") + "\n"), nil
	case slices.Equal(c.Args, []string{"--namespace", "k8s.io", "images", "import", "--help"}):
		if f.old {
			return []byte("   --digests  whether to create digest images\n"), nil
		}
		return []byte("   --local  Run import locally rather than through transfer API\n"), nil
	case slices.Equal(c.Args[:len(c.Args)-1], f.importCommand()):
		archive := c.Args[len(c.Args)-1]
		data, err := os.ReadFile(archive)
		if err != nil {
			return nil, err
		}
		names, err := archiveImages(bytes.NewReader(data))
		f.images = append(f.images, names...)
		f.imported = append(f.imported, filepath.Base(archive))
		return nil, err
	}
	return nil, errors.New("unknown command line: " + c.String())
}

func (f *fakeCtr) importCommand() []string {
	command := []string{"--namespace", "k8s.io", "images", "import"}
	if !f.old {
		command = append(command, "--local")
	}
	return command
}

func imagesHost(t *testing.T, f *fakeCtr) *host.Host {
	t.Helper()
	h := &host.Host{Root: t.TempDir(), Exec: f.exec}
	put(t, h, "/usr/bin/containerd", "", 0o755)
	put(t, h, "/usr/bin/ctr", "", 0o755)
	put(t, h, "/a.tar", dockerArchive(t, "r.io/a:1", "r.io/a:2"), 0o644)
	put(t, h, "/b.tar", dockerArchive(t, "r.io/b:1"), 0o644)
	return h
}

// answering has something listen on containerd's socket.
func answering(t *testing.T, h *host.Host) {
	t.Helper()
	if err := h.MkdirAll("/run/containerd", 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(h.Root, containerdSocket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
}

func TestImagesConverges(t *testing.T) {
	for _, old := range []bool{false, true} {
		imagesConverge(t, &fakeCtr{images: []string{"r.io/a:1", "sha256:00"}, old: old})
	}
}

func imagesConverge(t *testing.T, f *fakeCtr) {
	t.Helper()
	h := imagesHost(t, f)
	answering(t, h)
	s := Images(h, []string{"/a.tar", "/b.tar"}, "")
	changes, err := s.Check(t.Context())
	want := []step.Change{
		{Subject: "image r.io/a:2", Have: "absent", Want: "imported from /a.tar"},
		{Subject: "image r.io/b:1", Have: "absent", Want: "imported from /b.tar"},
	}
	if diff := cmp.Diff(want, changes); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	steptest.Converges(t, h, s)
	if diff := cmp.Diff([]string{"a.tar", "b.tar"}, f.imported); diff != "" {
		t.Error(diff)
	}
}

func TestImagesWithoutArchivesAsksNobody(t *testing.T) {
	h := &host.Host{Root: t.TempDir()} // to run anything would panic
	if changes, err := Images(h, nil, "").Check(t.Context()); err != nil || len(changes) > 0 {
		t.Error(changes, err)
	}
}

func TestImagesErrors(t *testing.T) {
	var blocked step.Blocked
	f := &fakeCtr{err: errors.New("ctr: cannot connect")}
	h := imagesHost(t, f)
	if _, err := Images(h, []string{"/a.tar"}, "").Check(t.Context()); !errors.As(err, &blocked) || blocked.On != "containerd" || !strings.Contains(err.Error(), "containerd.sock") {
		t.Errorf("containerd does not run: %v", err)
	}
	answering(t, h)
	if _, err := Images(h, []string{"/a.tar"}, "").Check(t.Context()); err == nil || errors.As(err, &blocked) {
		t.Errorf("containerd runs and ctr fails: %v", err)
	}
	if _, err := Images(h, []string{"/none.tar"}, "").Check(t.Context()); err == nil || !strings.Contains(err.Error(), "read image archive: lstat /none.tar") {
		t.Errorf("no such archive: %v", err)
	}
	put(t, h, "/theirs.tar", "", 0o646)
	if _, err := Images(h, []string{"/theirs.tar"}, "").Check(t.Context()); !errors.Is(err, host.ErrUntrusted) {
		t.Errorf("an archive that others can write: %v", err)
	}
	h.Offline = true
	if _, err := Images(h, []string{"/a.tar"}, "").Check(t.Context()); !errors.As(err, &blocked) || blocked.On != step.Boot {
		t.Errorf("offline: %v", err)
	}
}

// One archive that was cut off stops the import of all: nothing is imported half.
func TestImagesCutOff(t *testing.T) {
	f := &fakeCtr{}
	h := imagesHost(t, f)
	answering(t, h)
	whole := dockerArchive(t, "r.io/b:1")
	put(t, h, "/b.tar", whole[:len(whole)-1024], 0o644)
	results, err := step.Apply(t.Context(), []step.Step{Images(h, []string{"/a.tar", "/b.tar"}, "")}, nil)
	wantError(t, err, "read image archive /b.tar: is cut off", "copy it again")
	if results[0].Outcome != step.Failed || len(f.imported) > 0 {
		t.Errorf("%v, imported %v", results, f.imported)
	}
}

func FuzzArchiveImages(f *testing.F) {
	f.Add([]byte(tarOf(f, member{"layer.tar", "x"}, member{"manifest.json", `[{"RepoTags":["a"]}]`})))
	f.Add([]byte(tarOf(f, member{"index.json", ociIndex})))
	f.Add([]byte(tarOf(f, member{"manifest.json", "[null]"})))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		names, err := archiveImages(bytes.NewReader(data))
		if err == nil && len(names) == 0 {
			t.Error("neither names nor an error")
		}
	})
}
