package bootstrap

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/pkg/step"
)

// ConfigStep is the step after which kubeadm's phases have their configuration.
const ConfigStep = "kubeadm/config"

// validateTimeout is for a kubeadm that only reads: a disk that hangs must not hold a bootstrap up.
const validateTimeout = time.Minute

// kubeadmDraft is a configuration that kubeadm has yet to agree with.
const kubeadmDraft = kubeadmDir + "/draft.yaml"

// KubeadmConfigFile makes the step "kubeadm/config": the configuration that the phases of
// kubeadm are given is the one that follows from the agent's, and kubeadm itself has found it
// valid. It comes before anything of a cluster is made. Where a control plane is, the file is
// left as it is: it says what that was made from.
func KubeadmConfigFile(i Init) step.Step {
	return step.Step{Name: ConfigStep, Check: i.checkConfig, Apply: i.applyConfig}
}

func (i Init) checkConfig(ctx context.Context) ([]step.Change, error) {
	if i.Host.Offline {
		return nil, step.Blocked{On: step.Boot}
	}
	begun, err := i.begun()
	if err != nil {
		return nil, err
	}
	if begun {
		return i.changedTooLate(ctx)
	}
	if err := i.refuse(ctx); err != nil {
		return nil, err
	}
	if _, err := i.Address(ctx); err != nil {
		return nil, err // a plan is the time to hear of it
	}
	if err := i.inputs(); err != nil {
		return nil, err
	}
	kubeadm, err := Program(i.Host, "kubeadm")
	if err != nil {
		return nil, needPackages(i.Managed, err)
	}
	have, err := i.Host.ReadFile(kubeadmFile)
	if errors.Is(err, fs.ErrNotExist) {
		return []step.Change{{Subject: kubeadmFile, Have: "absent", Want: "rendered, and valid for kubeadm"}}, nil
	}
	if err != nil {
		return nil, err
	}
	want, err := i.render(ctx, kubeadm, tokenIn(have))
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(have, want) {
		return []step.Change{{Subject: kubeadmFile, Have: "of another configuration", Want: "rendered, and valid for kubeadm"}}, nil
	}
	left, err := i.leftOver(kubeadmDraft)
	if err != nil || len(left) == 0 {
		return nil, err
	}
	return []step.Change{{Subject: kubeadmDraft, Have: "left over", Want: "removed"}}, nil // there is a token in it
}

func (i Init) applyConfig(ctx context.Context) error {
	kubeadm, err := Program(i.Host, "kubeadm")
	if err != nil {
		return err
	}
	old, err := i.Host.ReadFile(kubeadmFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	token := tokenIn(old)
	if token == "" {
		token = newToken()
	}
	data, err := i.render(ctx, kubeadm, token)
	if err != nil {
		return err
	}
	if bytes.Equal(data, old) {
		return i.Host.Remove(kubeadmDraft) // kubeadm has agreed with it before
	}
	if err := i.Host.MkdirAll(kubeadmDir, 0o700); err != nil {
		return err
	}
	if err := i.Host.WriteFile(kubeadmDraft, data, 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, validateTimeout)
	defer cancel()
	if _, err := i.Host.Run(ctx, kubeadm, "config", "validate", "--config", kubeadmDraft); err != nil {
		return errors.Join(fmt.Errorf("validate kubeadm configuration: %w", err), i.Host.Remove(kubeadmDraft))
	}
	if err := i.Host.WriteFile(kubeadmFile, data, 0o600); err != nil {
		return err
	}
	return i.Host.Remove(kubeadmDraft)
}

// render is the configuration that the kubeadm of this host is to be given.
func (i Init) render(ctx context.Context, kubeadm, token string) ([]byte, error) {
	asking, cancel := context.WithTimeout(ctx, validateTimeout)
	defer cancel()
	out, err := i.Host.Run(asking, kubeadm, "version", "-o", "short")
	if err != nil {
		return nil, fmt.Errorf("ask kubeadm's version: %w", err)
	}
	version, minor, err := parseVersion(out)
	if err != nil {
		return nil, err
	}
	if minor != i.Minor {
		return nil, fmt.Errorf("kubeadm is %s, packages.kubernetesVersion is %q: install the one or change the other", version, i.Minor)
	}
	cluster := i.Cluster
	cluster.KubernetesVersion, cluster.Token = version, token
	if cluster.Address, err = i.Address(ctx); err != nil {
		return nil, err
	}
	return RenderKubeadm(cluster)
}

// tokenPattern is a bootstrap token on its line of the configuration.
var tokenPattern = regexp.MustCompile(`(?m)^ *(?:- )?token: ([a-z0-9]{6}\.[a-z0-9]{16})$`)

// tokenIn is the token of a rendered configuration, "" when there is none.
func tokenIn(config []byte) string {
	if m := tokenPattern.FindSubmatch(config); m != nil {
		return string(m[1])
	}
	return ""
}

// newToken is a random bootstrap token. rand.Text is of base32: at least 26 characters.
func newToken() string {
	text := strings.ToLower(rand.Text())
	return text[:6] + "." + text[6:22]
}
