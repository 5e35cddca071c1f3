package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// program is a Go package of one of the modules under test/artifacts.
type program struct{ module, pkg, output, ldflags string }

func kubernetesProgram() program {
	version := strings.SplitN(strings.TrimPrefix(KubernetesVersion, "v"), ".", 3)
	var flags []string
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		for _, v := range []string{
			"gitVersion=" + KubernetesVersion, "gitMajor=" + version[0], "gitMinor=" + version[1],
			"gitTreeState=clean", "gitCommit=module-" + KubernetesVersion, "buildDate=1970-01-01T00:00:00Z",
		} {
			flags = append(flags, "-X "+pkg+"."+v)
		}
	}
	return program{"kubernetes", ".", "kubernetes", strings.Join(flags, " ")}
}

func etcdPrograms() []program {
	const flags = "-X go.etcd.io/etcd/api/v3/version.GitSHA=module"
	return []program{
		{"etcd", "go.etcd.io/etcd/server/v3", "etcd", flags},
		{"etcd", "go.etcd.io/etcd/etcdctl/v3", "etcdctl", flags},
		{"etcd", "go.etcd.io/etcd/etcdutl/v3", "etcdutl", flags},
	}
}

// containerdPrograms are those of one series, stamped as upstream's makefile stamps them.
func containerdPrograms(module, pkg, version string) []program {
	flags := fmt.Sprintf("-X %[1]s/version.Version=%[2]s -X %[1]s/version.Revision=module -X %[1]s/version.Package=%[1]s", pkg, version)
	var ps []program
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
		ps = append(ps, program{module, pkg + "/cmd/" + name, name, flags})
	}
	return ps
}

func corednsProgram() program {
	return program{"coredns", ".", "coredns", "-X github.com/coredns/coredns/coremain.GitCommit=module"}
}

func versitygwProgram() program {
	return program{"versitygw", "github.com/versity/versitygw/cmd/versitygw", "versitygw", "-X main.Version=module"}
}

// crictlProgram is stamped as upstream's Makefile stamps it.
func crictlProgram() program {
	const pkg = "sigs.k8s.io/cri-tools"
	return program{"crictl", pkg + "/cmd/crictl", "crictl", "-X " + pkg + "/pkg/version.Version=" + strings.TrimPrefix(CRIToolsVersion, "v")}
}

func pauseProgram() program { return program{"pause", ".", "pause", ""} }

// programs is an artefact that holds the given programs, and links of other names to the first.
func programs(name string, ps []program, links []string) artefact {
	return artefact{
		name: name,
		inputs: func(l *lab, w io.Writer) error {
			for _, p := range ps {
				fmt.Fprintln(w, l.goVersion, p.args(""))
				if err := hashModule(w, filepath.Join(l.checkout, "test", "artifacts", p.module)); err != nil {
					return err
				}
			}
			fmt.Fprintln(w, links)
			return nil
		},
		make: func(ctx context.Context, l *lab, dir string, _ map[string]string) error {
			for _, p := range ps {
				module := filepath.Join(l.checkout, "test", "artifacts", p.module)
				if err := l.run(ctx, module, nil, goEnv(), "go", p.args(dir)...); err != nil {
					return err
				}
			}
			for _, link := range links {
				if err := os.Symlink(ps[0].output, filepath.Join(dir, link)); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (p program) args(dir string) []string {
	return []string{
		"build", "-trimpath", "-mod=readonly", "-buildvcs=false",
		"-ldflags", strings.TrimSpace("-s -w " + p.ldflags), "-o", filepath.Join(dir, p.output), p.pkg,
	}
}

func goEnv() []string {
	return []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=", "GOWORK=off"}
}

// hashModule writes the names and contents of the files a module is built from.
func hashModule(w io.Writer, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return err
	}
	files = append(files, filepath.Join(dir, "go.mod"), filepath.Join(dir, "go.sum"))
	for _, file := range files {
		content, err := os.ReadFile(file)
		if os.IsNotExist(err) && filepath.Base(file) == "go.sum" {
			continue // a module without requirements has none
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s %d\n%s", filepath.Base(file), len(content), content)
	}
	return nil
}
