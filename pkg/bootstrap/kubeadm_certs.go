package bootstrap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/nodeagent/nodeagent/pkg/step"
)

const (
	certsConfig = kubeadmDir + "/certs.yaml"
	stagedPKI   = kubeadmDir + "/pki"
	// stagedWhole is there when all of stagedPKI has been made and proven: from then on it is
	// the one that is put in place, however often that is begun.
	stagedWhole = kubeadmDir + "/pki-whole"
)

// Certificates makes the step "kubeadm/certs": the PKI of the control plane is there, and every
// certificate belongs to its key and its CA.
//
// kubeadm writes each file in place, and fails on what it leaves when it is killed: a key
// without its certificate, an empty file. So it works on a copy of what is there, in a
// directory of the agent's. The result is proven, marked as whole, and only then put in place, file by
// file; killed in between, the step goes on with the marked one. What lies in the PKI's
// directory already, such as an operator's own CA, is used by kubeadm and never written over.
func Certificates(i Init) step.Step {
	p := phase{name: "certs", part: "all"}
	p.missing = i.missingCerts
	p.apply = func(ctx context.Context) error { return i.makeCerts(ctx, p) }
	return i.step(p)
}

// pki is the PKI at dir, of this cluster's shape.
func (i Init) pki(dir string) pki {
	return pki{host: i.Host, dir: dir, externalEtcd: i.externalEtcd()}
}

// pkiDir is where the PKI is to lie.
func (i Init) pkiDir() string {
	if dir := i.Cluster.Kubeadm.ClusterConfiguration.lookup("certificatesDir"); dir != "" {
		return dir
	}
	return kubernetesDir + "/pki"
}

func (i Init) missingCerts(ctx context.Context) ([]string, error) {
	whole, err := i.Host.Exists(stagedWhole)
	if err != nil {
		return nil, err
	}
	if whole {
		return []string{"certificates are made, and not in place"}, nil
	}
	missing, err := i.pki(i.pkiDir()).missing()
	if err != nil {
		return nil, err
	}
	begun, err := i.begun()
	if err != nil {
		return nil, err
	}
	if !begun {
		if err := i.certificateFits(ctx); err != nil {
			return nil, err
		}
	}
	if len(missing) > 0 {
		return []string{"no " + strings.Join(missing, ", ") + " in " + i.pkiDir()}, nil
	}
	left, err := i.leftOver(stagedPKI)
	if err != nil || len(left) > 0 {
		return left, err
	}
	return i.leftOver(certsConfig)
}

// leftOver is what an earlier run was killed before it removed: copies of keys.
func (i Init) leftOver(dir string) ([]string, error) {
	there, err := i.Host.Exists(dir)
	if err != nil || !there {
		return nil, err
	}
	return []string{dir + " is left over"}, nil
}

func (i Init) makeCerts(ctx context.Context, p phase) error {
	whole, err := i.Host.Exists(stagedWhole)
	if err != nil {
		return err
	}
	if whole { // a power cut may have taken what was not on the disk yet
		if gone, err := i.pki(stagedPKI).missing(); err != nil || len(gone) > 0 {
			whole = false
		}
	}
	missing := []string{""}
	if !whole {
		if missing, err = i.pki(i.pkiDir()).missing(); err != nil {
			return err
		}
		if len(missing) > 0 {
			if err := i.stageCerts(ctx, p); err != nil {
				return err
			}
		}
	}
	if len(missing) > 0 {
		if err := i.placeCerts(); err != nil {
			return err
		}
	}
	// The mark goes first: without it the rest is only left over.
	return errors.Join(i.Host.Remove(stagedWhole), i.Host.RemoveAll(stagedPKI), i.Host.Remove(certsConfig))
}

// stageCerts has kubeadm make what is missing beside a copy of what is there, and proves it.
func (i Init) stageCerts(ctx context.Context, p phase) error {
	unit, err := i.Units.State(ctx, p.alone().unit())
	if err != nil {
		return err
	}
	if !isRunning(unit) { // else its staging directory is in use
		if err := i.prepareStage(); err != nil {
			return err
		}
	}
	if err := i.run(ctx, p.alone(), certsConfig); err != nil {
		return err
	}
	staged := i.pki(stagedPKI)
	missing, err := staged.missing()
	if err == nil && len(missing) > 0 {
		err = errors.New("kubeadm has not made " + strings.Join(missing, ", "))
	}
	if err == nil {
		err = i.syncStage() // kubeadm does not
	}
	if err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	return i.Host.WriteFile(stagedWhole, []byte("made by nodeagent with kubeadm, to be put in place\n"), 0o600)
}

// syncStage brings what is staged to the disk.
func (i Init) syncStage() error {
	paths := []string{filepath.Join(stagedPKI, "etcd"), stagedPKI}
	for _, name := range pkiFiles(i.externalEtcd()) {
		paths = append(paths, filepath.Join(stagedPKI, name))
	}
	for _, path := range paths {
		f, err := i.Host.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the key of a CA that signs elsewhere
		}
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (i Init) prepareStage() error {
	if err := i.Host.Remove(stagedWhole); err != nil {
		return err
	}
	if err := i.Host.RemoveAll(stagedPKI); err != nil {
		return err
	}
	if err := i.Host.MkdirAll(filepath.Join(stagedPKI, "etcd"), 0o700); err != nil {
		return err
	}
	there := i.pki(i.pkiDir())
	for _, name := range pkiFiles(there.externalEtcd) {
		data, err := there.read(name)
		if err != nil {
			return err
		}
		if data == nil {
			continue
		}
		if err := i.Host.WriteFile(filepath.Join(stagedPKI, name), data, 0o600); err != nil {
			return err
		}
	}
	config, err := i.Host.ReadFile(kubeadmFile)
	if err != nil {
		return fmt.Errorf("read kubeadm configuration: %w", err)
	}
	if config, err = withCertificatesDir(config, stagedPKI); err != nil {
		return err
	}
	return i.Host.WriteFile(certsConfig, config, 0o600)
}

// withCertificatesDir is a kubeadm configuration for another directory of the PKI: kubeadm takes
// no flag for it beside a file.
func withCertificatesDir(config []byte, dir string) ([]byte, error) {
	var out bytes.Buffer
	documents, enc := yaml.NewDecoder(bytes.NewReader(config)), yaml.NewEncoder(&out)
	for {
		var doc yaml.Node
		err := documents.Decode(&doc)
		if err != nil && out.Len() > 0 && errors.Is(err, io.EOF) {
			return out.Bytes(), enc.Close()
		}
		if err != nil {
			return nil, fmt.Errorf("read kubeadm configuration: %w", err)
		}
		root := doc.Content[0]
		if at := indexOf(root, "kind"); at >= 0 && root.Content[at].Value == "ClusterConfiguration" {
			var over yaml.Node
			if err := over.Encode(map[string]string{"certificatesDir": dir}); err != nil {
				return nil, fmt.Errorf("change kubeadm configuration: %w", err)
			}
			merge(root, &over)
		}
		if err := enc.Encode(root); err != nil {
			return nil, fmt.Errorf("change kubeadm configuration: %w", err)
		}
	}
}

// placeCerts puts every staged file in place that is not there, a key and its certificate one
// after the other.
func (i Init) placeCerts() error {
	staged, there := i.pki(stagedPKI), i.pki(i.pkiDir())
	if err := i.Host.MkdirAll(filepath.Join(i.pkiDir(), "etcd"), 0o755); err != nil {
		return err
	}
	for _, name := range pkiFiles(staged.externalEtcd) {
		data, err := staged.read(name)
		if err != nil {
			return err
		}
		have, err := there.read(name)
		switch {
		case err != nil:
			return err
		case data == nil || bytes.Equal(have, data): // nil: the key of a CA that signs elsewhere
			continue
		case have != nil:
			return fmt.Errorf("put certificates in place: %s has come meanwhile and is another one; `rm -r %s` and `nodeagent apply` begin with it",
				filepath.Join(i.pkiDir(), name), kubeadmDir)
		}
		if err := i.Host.WriteFile(filepath.Join(i.pkiDir(), name), data, pkiMode(name)); err != nil {
			return err
		}
	}
	return nil
}

// pkiMode is kubeadm's own: certificates are for everybody.
func pkiMode(name string) fs.FileMode {
	if filepath.Ext(name) == ".crt" {
		return 0o644
	}
	return 0o600
}
