package bootstrap

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
)

// PackagesConfig is the section "packages".
type PackagesConfig struct {
	// Manage says whether the agent installs containerd, kubelet, kubeadm, kubectl, cri-tools
	// and kubernetes-cni by apt. With false they must be there.
	Manage bool `yaml:"manage"`
	// KubernetesVersion is the minor, "1.36": the newest patch that the repository has is
	// installed, and stays. A patch, "1.36.3", is installed as given. 1.36 is what is tested; 1.35
	// and 1.37 are taken, with a finding; others are refused.
	KubernetesVersion string `yaml:"kubernetesVersion"`
	// Containerd is the package that brings containerd; whichever of containerd and
	// containerd.io is installed when empty, or else containerd. It comes from the apt sources
	// that the host has.
	Containerd string `yaml:"containerd"`
	// Repository is where the Kubernetes packages come from.
	Repository RepositoryConfig `yaml:"repository"`
}

// RepositoryConfig is the section "packages.repository".
type RepositoryConfig struct {
	// URL of a flat apt repository, a mirror of the community's: https://, file:// or, with
	// keyFile, http://; the community's own of the minor when empty.
	URL string `yaml:"url"`
	// KeyFile is the public key, armored or binary, that the repository is signed with; it is
	// fetched from Release.key in the repository over https when empty.
	KeyFile string `yaml:"keyFile"`
}

// versionPattern is a minor of Kubernetes, or one of its patches.
var versionPattern = regexp.MustCompile(`^(1\.[0-9]{1,3})(?:\.([0-9]{1,4}))?$`)

// packageName is that of a Debian package, by Debian's policy.
var packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)

// Minor is the minor version that is wanted: "1.36".
func (c PackagesConfig) Minor() string {
	if m := versionPattern.FindStringSubmatch(c.KubernetesVersion); m != nil {
		return m[1]
	}
	return c.KubernetesVersion
}

// Pinned says whether one patch is wanted, and not any of the minor.
func (c PackagesConfig) Pinned() bool {
	m := versionPattern.FindStringSubmatch(c.KubernetesVersion)
	return m != nil && m[2] != ""
}

// repositoryURL is the repository's, with a slash at its end.
func (c PackagesConfig) repositoryURL() string {
	if c.Repository.URL == "" {
		return "https://pkgs.k8s.io/core:/stable:/v" + c.Minor() + "/deb/"
	}
	return strings.TrimRight(c.Repository.URL, "/") + "/"
}

// Validate says what is wrong with the section.
func (c PackagesConfig) Validate() error {
	var errs []error
	switch {
	case !versionPattern.MatchString(c.KubernetesVersion):
		errs = append(errs, fmt.Errorf(`kubernetesVersion: %q is neither a minor like "1.36" nor a patch like "1.36.3"`, c.KubernetesVersion))
	default:
		if err := validateMinor(c.Minor()); err != nil {
			errs = append(errs, fmt.Errorf("kubernetesVersion: %q %w", c.KubernetesVersion, err))
		}
	}
	if c.Containerd != "" && !packageName.MatchString(c.Containerd) {
		errs = append(errs, fmt.Errorf("containerd: %q is no name of a package: containerd, containerd.io", c.Containerd))
	}
	if err := c.Repository.validateURL(); err != nil {
		errs = append(errs, fmt.Errorf("repository.url: %w", err))
	}
	if c.Repository.KeyFile != "" && !filepath.IsAbs(c.Repository.KeyFile) {
		errs = append(errs, fmt.Errorf("repository.keyFile: %q is not an absolute path", c.Repository.KeyFile))
	}
	return errors.Join(errs...)
}

func (c RepositoryConfig) validateURL() error {
	if c.URL == "" {
		return nil
	}
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || strings.ContainsFunc(c.URL, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return errors.New("is not a URL") // which may hold a password
	case u.User != nil:
		return errors.New("holds a user or a password, and apt's sources are readable by everybody: put it into /etc/apt/auth.conf.d")
	case u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("%q: apt knows no query and no fragment", c.URL)
	case u.Scheme == "http" && c.KeyFile == "":
		return fmt.Errorf("%q: over http the key could be anybody's: give keyFile, or use https", c.URL)
	case (u.Scheme == "https" || u.Scheme == "http") && u.Host != "":
		return nil
	case u.Scheme == "file" && u.Host == "" && filepath.IsAbs(u.Path):
		return nil
	}
	return fmt.Errorf("%q is none of https://, http:// and file:///", c.URL)
}
