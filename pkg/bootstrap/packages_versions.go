package bootstrap

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// kubernetesPackages are of one version, and all of them are wanted.
var kubernetesPackages = []string{"kubelet", "kubeadm", "kubectl"}

// companionPackages come from the same repository with versions of their own, and are wanted
// as far as it has them.
var companionPackages = []string{"cri-tools", "kubernetes-cni"}

// debianVersion is that of a Kubernetes package: an epoch, the release, Debian's revision. What
// comes before a release ("1.36.0~rc.1") is none.
var debianVersion = regexp.MustCompile(`^(?:[0-9]+:)?([0-9]+\.[0-9]+)\.([0-9]+)(?:[-+].*)?$`)

// release splits the version of a package: minor "1.36", patch "1.36.3".
func release(version string) (minor, patch string, ok bool) {
	m := debianVersion.FindStringSubmatch(version)
	if m == nil {
		return "", "", false
	}
	return m[1], m[1] + "." + m[2], true
}

// byPatch orders patches of one minor.
func byPatch(a, b string) int {
	number := func(patch string) int {
		n, err := strconv.Atoi(patch[strings.LastIndexByte(patch, '.')+1:])
		if err != nil {
			return -1
		}
		return n
	}
	return cmp.Compare(number(a), number(b))
}

// offer is what a repository has: the versions of each package, the newest first.
type offer map[string][]string

// parseMadison reads `apt-cache madison`, "package | version | source", and keeps what the
// source at url has. Within a package apt puts the newest first.
func parseMadison(out, url string) offer {
	o := offer{}
	for line := range strings.Lines(out) {
		fields := strings.Split(line, "|")
		if len(fields) != 3 {
			continue
		}
		name, version := strings.TrimSpace(fields[0]), strings.TrimSpace(fields[1])
		source := strings.Fields(fields[2])
		if len(source) == 0 || source[len(source)-1] != "Packages" || url != "" && !sameURL(source[0], url) {
			continue
		}
		if !slices.Contains(o[name], version) {
			o[name] = append(o[name], version)
		}
	}
	return o
}

// patches are those of minor that all of names can be had in, the newest first.
func (o offer) patches(minor string, names []string) []string {
	var all []string
	for i, name := range names {
		var have []string
		for _, version := range o[name] {
			if m, patch, ok := release(version); ok && m == minor {
				have = append(have, patch)
			}
		}
		if i == 0 {
			all = have
			continue
		}
		all = slices.DeleteFunc(all, func(p string) bool { return !slices.Contains(have, p) })
	}
	slices.SortFunc(all, func(a, b string) int { return byPatch(b, a) })
	return slices.Compact(all)
}

// version is the newest of a package that is of the patch.
func (o offer) version(name, patch string) (string, bool) {
	for _, version := range o[name] {
		if _, p, ok := release(version); ok && p == patch {
			return version, true
		}
	}
	return "", false
}

// choose picks the patch that names are installed in: want, or the newest of minor when want
// is empty. It fails with what the repository has instead.
func (o offer) choose(minor, want string, names []string) (string, error) {
	patches := o.patches(minor, names)
	switch {
	case want == "" && len(patches) > 0:
		return patches[0], nil
	case slices.Contains(patches, want):
		return want, nil
	case want == "":
		want = minor
	}
	var has []string
	for _, name := range names {
		versions := strings.Join(o[name], " ")
		if versions == "" {
			versions = "nothing"
		}
		has = append(has, name+": "+versions)
	}
	return "", fmt.Errorf("no %s of %s in the repository; it has %s", want, strings.Join(names, ", "), strings.Join(has, "; "))
}
