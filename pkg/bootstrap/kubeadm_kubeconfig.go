package bootstrap

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/nodeagent/nodeagent/pkg/step"
)

const (
	stagedKubeconfigs = kubeadmDir + "/kubeconfig"
	kubernetesDir     = "/etc/kubernetes"
)

// kubeconfigs are what kubeadm's phase kubeconfig makes, in its order.
var kubeconfigs = []string{"admin.conf", "super-admin.conf", "kubelet.conf", "controller-manager.conf", "scheduler.conf"}

// Kubeconfigs makes the step "kubeadm/kubeconfig": the five kubeconfigs of a control plane are
// there, and each has a certificate that belongs to its key. kubeadm, killed, leaves an empty one
// and then fails on it; so it makes them in a directory of the agent's, from where those that
// are missing are put in place, each whole or not at all.
func Kubeconfigs(i Init) step.Step {
	p := phase{name: "kubeconfig", part: "all"}
	p.missing = func(ctx context.Context) ([]string, error) {
		missing, err := i.missingKubeconfigs(ctx)
		if err != nil {
			return nil, err
		}
		if len(missing) > 0 {
			return []string{"no " + strings.Join(missing, ", ") + " in " + kubernetesDir}, nil
		}
		return i.leftOver(stagedKubeconfigs)
	}
	p.apply = func(ctx context.Context) error { return i.applyKubeconfigs(ctx, p) }
	return i.step(p)
}

// missingKubeconfigs are those that are not there. One that cannot be used is an error.
func (i Init) missingKubeconfigs(ctx context.Context) ([]string, error) {
	begun, err := i.begun()
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, name := range kubeconfigs {
		path := filepath.Join(kubernetesDir, name)
		data, err := i.Host.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, name)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read kubeconfig: %w", err)
		}
		server, err := usableKubeconfig(data)
		if err == nil && !begun {
			err = i.kubeconfigFits(ctx, server)
		}
		if err != nil {
			return nil, &brokenFile{path: path, why: err, remedy: "`rm " + path + "` and `nodeagent apply` make it anew"}
		}
	}
	return missing, nil
}

// usableKubeconfig is the server of a kubeconfig that has a certificate with its key, or the
// files of both; an error for one that cannot be used.
func usableKubeconfig(data []byte) (server string, err error) {
	var k struct {
		Clusters []struct {
			Cluster struct {
				Server string `yaml:"server"`
			} `yaml:"cluster"`
		} `yaml:"clusters"`
		Users []struct {
			User struct {
				CertificateData string `yaml:"client-certificate-data"`
				KeyData         string `yaml:"client-key-data"`
				Certificate     string `yaml:"client-certificate"`
				Key             string `yaml:"client-key"`
			} `yaml:"user"`
		} `yaml:"users"`
	}
	if err := yaml.Unmarshal(data, &k); err != nil {
		return "", errors.New("it is no YAML") // the parser would quote the key
	}
	if len(k.Clusters) == 0 || k.Clusters[0].Cluster.Server == "" || len(k.Users) == 0 {
		return "", errors.New("it is empty, or names no server or no user")
	}
	server, user := k.Clusters[0].Cluster.Server, k.Users[0].User
	if user.Certificate != "" && user.Key != "" {
		return server, nil // the kubelet's, once it has rotated its certificate
	}
	crt, err := base64.StdEncoding.DecodeString(strings.TrimSpace(user.CertificateData))
	if err != nil {
		return "", errors.New("its certificate is cut off")
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(user.KeyData))
	if err != nil {
		return "", errors.New("its key is cut off")
	}
	if _, err := tls.X509KeyPair(crt, key); err != nil {
		return "", fmt.Errorf("its certificate and key: %w", err)
	}
	return server, nil
}

func (i Init) applyKubeconfigs(ctx context.Context, p phase) error {
	missing, err := i.missingKubeconfigs(ctx)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		if err := i.makeKubeconfigs(ctx, p, missing); err != nil {
			return err
		}
	}
	return i.Host.RemoveAll(stagedKubeconfigs)
}

func (i Init) makeKubeconfigs(ctx context.Context, p phase, missing []string) error {
	unit, err := i.Units.State(ctx, p.alone().unit())
	if err != nil {
		return err
	}
	if !isRunning(unit) { // else its staging directory is in use
		if err := i.Host.RemoveAll(stagedKubeconfigs); err != nil {
			return err
		}
		if err := i.Host.MkdirAll(stagedKubeconfigs, 0o700); err != nil {
			return err
		}
	}
	err = i.run(ctx, p.alone(), kubeadmFile, "--kubeconfig-dir", stagedKubeconfigs)
	if err != nil {
		return err
	}
	for _, name := range missing {
		data, err := i.Host.ReadFile(filepath.Join(stagedKubeconfigs, name))
		if err != nil {
			return fmt.Errorf("read what kubeadm has made: %w", err)
		}
		if _, err := usableKubeconfig(data); err != nil {
			return fmt.Errorf("check the %s that kubeadm has made: %w", name, err)
		}
		if err := i.Host.WriteFile(filepath.Join(kubernetesDir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}
