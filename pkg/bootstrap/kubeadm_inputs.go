package bootstrap

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"

	"go.yaml.in/yaml/v3"
)

// maxInput is the most that a patch, a policy or a certificate may be, in bytes.
const maxInput = 1 << 20

// inputs says what is wrong with the files that kubeadm's configuration names and the operator
// brings: kubeadm notices some of it in the middle of its work, and some never.
func (i Init) inputs() error {
	return errors.Join(i.checkPatches(), i.checkEtcdClient(), i.checkAuditPolicy(), i.checkNamedFiles())
}

// patchName is how kubeadm names a patch: TARGET[SUFFIX][+TYPE].EXTENSION. kubeadm itself ignores
// most names that are not so, and with them what was meant.
var patchName = regexp.MustCompile(`^(etcd|kube-apiserver|kube-controller-manager|kube-scheduler|kubeletconfiguration|corednsdeployment|kubeproxydaemonset)[^.+]*(?:\+(?:json|merge|strategic))?\.(?:json|yaml)$`)

const patchNames = "TARGET[SUFFIX][+json|+merge|+strategic].yaml or .json, TARGET being etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubeletconfiguration or corednsdeployment"

// checkPatches looks at the directory kubeadm.patches.
func (i Init) checkPatches() error {
	dir := i.Cluster.Kubeadm.Patches
	if dir == "" {
		return nil
	}
	info, err := i.Host.Lstat(dir)
	switch {
	case err != nil:
		return fmt.Errorf("look at kubeadm.patches: %w", err)
	case !info.IsDir(): // kubeadm follows no link either
		return fmt.Errorf("look at kubeadm.patches: %s is not a directory", dir)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("look at kubeadm.patches: others can write directory %s (mode %04o); chmod go-w %[1]s", dir, info.Mode().Perm())
	}
	if err := i.Host.CheckTrusted(dir); err != nil {
		return fmt.Errorf("look at kubeadm.patches: %w", err)
	}
	entries, err := i.Host.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look at kubeadm.patches: %w", err)
	}
	var errs []error
	for _, entry := range entries {
		if err := i.checkPatch(filepath.Join(dir, entry.Name()), entry.Name()); err != nil {
			errs = append(errs, fmt.Errorf("look at kubeadm.patches: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (i Init) checkPatch(path, name string) error {
	target := patchName.FindStringSubmatch(name)
	switch {
	case target == nil:
		return fmt.Errorf("%s is not named as kubeadm names a patch: %s", path, patchNames)
	case target[1] == "kubeproxydaemonset" && minorNumber(i.Minor) < 37:
		return fmt.Errorf("%s: kubeadm patches kube-proxy from 1.37 on", path)
	}
	data, err := i.Host.ReadTrusted(path, maxInput)
	if err != nil {
		return err
	}
	return isYAML(path, data)
}

// isYAML wants at least one document, and no error that would quote one.
func isYAML(path string, data []byte) error {
	documents, some := yaml.NewDecoder(bytes.NewReader(data)), false
	for {
		var doc yaml.Node
		err := documents.Decode(&doc)
		switch {
		case errors.Is(err, io.EOF) && some:
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("%s is empty", path)
		case err != nil:
			return fmt.Errorf("%s is neither YAML nor JSON", path)
		}
		some = some || doc.Content[0].Tag != "!!null"
	}
}

// checkEtcdClient looks at the files by which the API server reaches an external etcd.
func (i Init) checkEtcdClient() error {
	file := func(key string) string { return i.Cluster.Kubeadm.ClusterConfiguration.lookup("etcd", "external", key) }
	ca, crt, key := file("caFile"), file("certFile"), file("keyFile")
	var errs []error
	wrong := func(key string, err error) {
		errs = append(errs, fmt.Errorf("look at kubeadm.clusterConfiguration.etcd.external.%s: %w", key, err))
	}
	if ca != "" {
		data, err := i.Host.ReadTrusted(ca, maxInput)
		if err == nil {
			if _, err = firstCertificate(data); err != nil {
				err = fmt.Errorf("%s: %w", ca, err)
			}
		}
		if err != nil {
			wrong("caFile", err)
		}
	}
	if crt == "" || key == "" { // one without the other is for kubeadm to refuse
		return errors.Join(errs...)
	}
	certificate, err := i.Host.ReadTrusted(crt, maxInput)
	if err != nil {
		wrong("certFile", err)
	}
	if !filepath.IsAbs(key) {
		wrong("keyFile", fmt.Errorf("%q is not an absolute path", key))
		return errors.Join(errs...)
	}
	private, err := i.Host.ReadSecret(key)
	if err != nil {
		wrong("keyFile", err)
	}
	if len(errs) == 0 {
		if _, err := tls.X509KeyPair(certificate, private); err != nil {
			wrong("certFile", fmt.Errorf("%s and %s: %w", crt, key, err))
		}
	}
	return errors.Join(errs...)
}

// checkAuditPolicy looks at kubeadm.hardening.auditPolicyFile: an API server that cannot read its
// policy does not start.
func (i Init) checkAuditPolicy() error {
	path := i.Cluster.Kubeadm.Hardening.AuditPolicyFile
	if path == "" {
		return nil
	}
	data, err := i.Host.ReadTrusted(path, maxInput)
	if err != nil {
		return fmt.Errorf("look at kubeadm.hardening.auditPolicyFile: %w", err)
	}
	var policy struct{ Kind string }
	if err := yaml.Unmarshal(data, &policy); err != nil || policy.Kind != "Policy" {
		return fmt.Errorf("look at kubeadm.hardening.auditPolicyFile: %s is no audit policy: kind Policy of audit.k8s.io/v1", path)
	}
	return nil
}
