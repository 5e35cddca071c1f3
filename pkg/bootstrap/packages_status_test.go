package bootstrap

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/host"
)

func TestDpkgStatus(t *testing.T) {
	h := &host.Host{Root: t.TempDir()}
	if s, err := readDpkg(h); err != nil || len(s.packages) > 0 || len(s.unfinished()) > 0 {
		t.Errorf("a host without dpkg: %+v, %v", s, err)
	}
	put(t, h, dpkgStatus, `Package: kubelet
Status: hold ok installed
Priority: optional
Architecture: amd64
Version: 1.36.3-1.1
Conffiles:
 /etc/default/kubelet d41d8cd98f00b204e9800998ecf8427e
Description: x
 Package: not-this
 .
 more

package: libc6
status: install  ok half-configured
Architecture: i386
Version: 2.36

Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36

Package: gone
Status: deinstall ok config-files

Package: broken
Status: install reinstreq half-installed`, 0o644)
	put(t, h, dpkgUpdates+"/tmp.i", "", 0o644)
	s, err := readDpkg(h)
	if err != nil {
		t.Fatal(err)
	}
	kubelet, there := s.find("kubelet")
	if want := (dpkgPackage{"kubelet", "amd64", "1.36.3-1.1", "hold", "ok", "installed"}); kubelet != want || !there || !kubelet.held() {
		t.Errorf("%+v, want %+v", kubelet, want)
	}
	if libc, _ := s.find("libc6"); libc.Architecture != "amd64" {
		t.Errorf("found %+v, and not the one that is installed", libc)
	}
	if _, there := s.find("not-this"); there {
		t.Error("a description is taken for a package")
	}
	if diff := cmp.Diff([]string{"broken (half-installed, reinstreq)", "libc6 (half-configured)"}, s.unfinished()); diff != "" {
		t.Error(diff)
	}
	for name, text := range map[string]string{
		"0009": "Package: kubelet\nStatus: install ok half-configured\nArchitecture: amd64\nVersion: 1.36.4-1.1\n",
		"0010": "Package: kubelet\nStatus: install ok unpacked\nArchitecture: amd64\nVersion: 1.36.5-1.1\n",
		"0011": "Package: kubeadm\nStatus: install reinstreq half-installed\nArchitecture: amd64\n",
		"0012": "",
	} {
		put(t, h, dpkgUpdates+"/"+name, text, 0o644)
	}
	if s, err = readDpkg(h); err != nil || !s.journal {
		t.Errorf("the journal is not seen: %v", err)
	}
	if p, _ := s.find("kubelet"); p.State != "unpacked" || p.Version != "1.36.5-1.1" {
		t.Errorf("kubelet is %+v, against the journal", p)
	}
	if p, _ := s.find("kubeadm"); p.State != "half-installed" {
		t.Errorf("kubeadm is %+v, against the journal", p)
	}
	put(t, h, dpkgUpdates+"/0013", "junk", 0o644)
	_, err = readDpkg(h)
	wantError(t, err, dpkgUpdates+"/0013: line 1")
}

func TestDpkgStatusErrors(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"no state":       {"Package: a\n\n", "line 2: a package without a name or a state ends here"},
		"no name":        {"Status: install ok installed", "line 1: a package without"},
		"two words":      {"Package: a\nStatus: install installed\n", `line 2: state "install installed" is not of three words`},
		"no field":       {"Package: a\n\x00\x00\x00\n", `line 2: "\x00\x00\x00" is no field`},
		"cut off inside": {"Package: a\nStatus: install ok installed\nDescr", `line 3: "Descr" is no field`},
	} {
		t.Run(name, func(t *testing.T) {
			h := &host.Host{Root: t.TempDir()}
			put(t, h, dpkgStatus, test.text, 0o644)
			_, err := readDpkg(h)
			wantError(t, err, "read state of packages: "+dpkgStatus, test.want)
		})
	}
}

func FuzzDpkgStatus(f *testing.F) {
	f.Add("Package: a\nStatus: install ok installed\nVersion: 1\n\nPackage: b\nStatus: hold reinstreq half-installed\n")
	f.Add("Package: a\r\nStatus: install ok installed\r\n\r\n")
	f.Add(" a\n\t\nPackage:\nStatus: x y z")
	if data, err := os.ReadFile(dpkgStatus); err == nil { // the machine's own
		f.Add(string(data[:min(len(data), 20000)]))
	}
	f.Fuzz(func(t *testing.T, text string) {
		packages, err := parseDpkgStatus([]byte(text))
		if err != nil {
			return
		}
		var again strings.Builder
		for _, p := range packages {
			if p.Name == "" || p.State == "" || !strings.Contains(text, p.Name) || !strings.Contains(text, p.Version) {
				t.Errorf("%+v of %q", p, text)
			}
			fmt.Fprintf(&again, "Package: %s\nArchitecture: %s\nVersion: %s\nStatus: %s %s %s\n\n", p.Name, p.Architecture, p.Version, p.Want, p.Flag, p.State)
		}
		// Written again it reads the same: no field of one has gone to another.
		back, err := parseDpkgStatus([]byte(again.String()))
		if diff := cmp.Diff(packages, back); err != nil || diff != "" {
			t.Errorf("%v\n%s", err, diff)
		}
	})
}
