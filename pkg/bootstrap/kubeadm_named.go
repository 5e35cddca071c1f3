package bootstrap

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Which arguments of the control plane and the kubelet name files, by how Kubernetes and etcd
// name such arguments: those with a key, a token or a password in them, and the others.
var (
	secretArgument = regexp.MustCompile(`(^|-)(keyfile|key-file|client-key|kubeconfig|encryption-provider-config|token-auth-file|webhook-config-file)$`)
	fileArgument   = regexp.MustCompile(`(^|-)(config|file|cafile|certfile|kubelet-client-certificate|kubelet-certificate-authority)$`)
)

// publicArgument ends like one of a secret, and names public keys.
const publicArgument = "service-account-key-file"

// checkNamedFiles looks at the files that arguments of the control plane and of the kubelet name:
// what is in them decides who is let in, or is a secret. One that is not there is not looked for,
// since kubeadm makes some of them.
func (i Init) checkNamedFiles() error {
	kubeadm := i.Cluster.Kubeadm
	var errs []error
	for _, at := range [][]string{{"apiServer"}, {"controllerManager"}, {"scheduler"}, {"etcd", "local"}} {
		var c component
		if node := kubeadm.ClusterConfiguration.at(at...); node != nil && node.Decode(&c) != nil {
			continue // kubeadm validates its own, and says more of it
		}
		for _, arg := range c.ExtraArgs {
			if path := i.mounted(c.ExtraVolumes, arg.Value); path != "" {
				errs = append(errs, i.checkNamed("clusterConfiguration."+strings.Join(at, ".")+".extraArgs", arg.Name, path))
			}
		}
	}
	errs = append(errs, i.checkKubeletFiles())
	return errors.Join(errs...)
}

func (i Init) checkKubeletFiles() error {
	var args []extraArg
	node := i.Cluster.Kubeadm.InitConfiguration.at("nodeRegistration", "kubeletExtraArgs")
	if node != nil && node.Kind == yaml.SequenceNode && node.Decode(&args) != nil {
		args = nil // kubeadm says more of it
	}
	var errs []error
	for _, arg := range args {
		errs = append(errs, i.checkNamed("initConfiguration.nodeRegistration.kubeletExtraArgs", arg.Name, arg.Value))
	}
	kubelet := i.Cluster.Kubeadm.KubeletConfiguration
	return errors.Join(append(errs,
		i.checkNamed("kubeletConfiguration.tlsPrivateKeyFile", "key-file", kubelet.lookup("tlsPrivateKeyFile")),
		i.checkNamed("kubeletConfiguration.tlsCertFile", "file", kubelet.lookup("tlsCertFile")),
		i.checkNamed("kubeletConfiguration.authentication.x509.clientCAFile", "file", kubelet.lookup("authentication", "x509", "clientCAFile")),
	)...)
}

// checkNamed looks at the file of one argument, if its name is that of a file.
func (i Init) checkNamed(at, name, path string) error {
	if !filepath.IsAbs(path) {
		return nil
	}
	check := i.Host.CheckTrusted
	switch {
	case secretArgument.MatchString(name) && name != publicArgument:
		check = i.Host.CheckSecret
	case !fileArgument.MatchString(name):
		return nil
	}
	if err := check(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at kubeadm.%s (%s): %w", at, name, err)
	}
	return nil
}

// mounted is where on the host a path in a static pod lies: in one of its extra volumes, the
// innermost, or in the PKI, which kubeadm mounts; "" for the pod's own.
func (i Init) mounted(volumes []extraVolume, path string) string {
	volumes = append(slices.Clone(volumes), extraVolume{HostPath: i.pkiDir(), MountPath: i.pkiDir()})
	found, length := "", 0
	for _, v := range volumes {
		rest, below := strings.CutPrefix(path, v.MountPath)
		if below && (rest == "" || rest[0] == '/') && len(v.MountPath) > length {
			found, length = filepath.Join(v.HostPath, rest), len(v.MountPath)
		}
	}
	return found
}
