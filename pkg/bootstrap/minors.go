package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/step"
)

// What is known of each minor of Kubernetes that this version takes: pauseTags are the tags of
// the sandbox image that its kubeadm names. A containerd that runs another one pulls an image
// that nobody has checked, and fails where there is none.
var pauseTags = map[string]string{"1.35": "3.10.1", "1.36": "3.10.2", "1.37": "3.10.2"}

// testedMinors are those that the tests run. The others of pauseTags are taken with a finding.
var testedMinors = []string{"1.36"}

// validateMinor says why a minor is not taken.
func validateMinor(minor string) error {
	if _, known := pauseTags[minor]; known {
		return nil
	}
	return errors.New("is not supported: this version is tested with 1.36, and takes 1.35 and 1.37 untested")
}

// untested says whether a minor is taken although no test runs it.
func untested(minor string) bool { return !slices.Contains(testedMinors, minor) }

// version tells of a minor that no test runs.
func (p preflight) version(context.Context) ([]step.Change, error) {
	if p.Minor == "" || p.role == Etcd || !untested(p.Minor) {
		return nil, nil
	}
	return []step.Change{finding("KubernetesVersion", p.Minor, strings.Join(testedMinors, ", ")+": this version of nodeagent is not tested with others; try it on a host that you can lose")}, nil
}

// minorNumber is 36 of "1.36", 0 of what is no minor.
func minorNumber(minor string) int {
	_, number, _ := strings.Cut(minor, ".")
	n, err := strconv.Atoi(number)
	if err != nil {
		return 0
	}
	return n
}

// PauseImage is the sandbox image that goes with a minor ("1.36") of Kubernetes.
func PauseImage(minor string, kubeadm KubeadmConfig) (string, error) {
	tag, ok := pauseTags[minor]
	if !ok {
		return "", fmt.Errorf("find sandbox image: no known one for Kubernetes %s", minor)
	}
	repository := kubeadm.ClusterConfiguration.lookup("imageRepository")
	if repository == "" {
		repository = "registry.k8s.io"
	}
	return repository + "/pause:" + tag, nil
}

// parseVersion reads what `kubeadm version -o short` prints.
func parseVersion(out []byte) (version, minor string, err error) {
	version = strings.TrimSpace(string(out))
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) != 3 || !strings.HasPrefix(version, "v") {
		return "", "", errors.New("read kubeadm's version: it prints " + version)
	}
	return version, parts[0] + "." + parts[1], nil
}
