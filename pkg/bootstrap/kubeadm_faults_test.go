package bootstrap

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

// What does not belong together is named, with what mends it, and nothing is made over it.
func TestPhaseBroken(t *testing.T) {
	for name, test := range map[string]struct {
		path, text string // "" removes it
		want       []string
	}{
		"a key alone":               {"/etc/kubernetes/pki/apiserver.crt", "", []string{"apiserver.key: its certificate is missing", "`rm -f /etc/kubernetes/pki/apiserver.crt /etc/kubernetes/pki/apiserver.key`"}},
		"a certificate alone":       {"/etc/kubernetes/pki/etcd/peer.key", "", []string{"etcd/peer.crt: its key is missing"}},
		"an empty certificate":      {"/etc/kubernetes/pki/front-proxy-client.crt", " ", []string{"front-proxy-client.crt: "}},
		"an empty sa.pub":           {"/etc/kubernetes/pki/sa.pub", " ", []string{"sa.pub: it is not there, or not the public half"}},
		"no sa.key":                 {"/etc/kubernetes/pki/sa.key", "", []string{"sa.pub: its key is missing"}},
		"a CA cut short":            {"/etc/kubernetes/pki/ca.crt", "-----BEGIN CERT", []string{"ca.crt: ", "put it back from a backup"}},
		"no CA":                     {"/etc/kubernetes/pki/etcd/ca.crt", "", []string{"etcd/ca.key: its certificate is missing", "put it back from a backup"}},
		"an empty kubeconfig":       {"/etc/kubernetes/admin.conf", " ", []string{"check /etc/kubernetes/admin.conf: it is empty", "`rm /etc/kubernetes/admin.conf`"}},
		"a kubeconfig cut short":    {"/etc/kubernetes/kubelet.conf", "clusters: [{cluster: {server: s}}]\nusers: [{user: {client-certificate-data: eA==", []string{"kubelet.conf: it is no YAML"}},
		"a kubeconfig without keys": {"/etc/kubernetes/kubelet.conf", "clusters: [{cluster: {server: s}}]\nusers: [{user: {}}]\n", []string{"kubelet.conf: its certificate and key"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			complete(t, l, KubeadmConfig{})
			if test.text == "" {
				if err := l.Remove(test.path); err != nil {
					t.Fatal(err)
				}
			} else {
				put(t, l.Host, test.path, test.text, 0o600)
			}
			_, err := step.Apply(t.Context(), allPhases(l.init(KubeadmConfig{})), nil)
			wantError(t, err, test.want...)
			if err != nil && strings.Contains(err.Error(), "eA==") {
				t.Errorf("a key is quoted: %v", err)
			}
			l.adopted = true // a running cluster: nothing of it is to be removed
			for _, r := range step.Plan(t.Context(), allPhases(l.init(KubeadmConfig{})), nil) {
				for _, f := range r.Findings() {
					if strings.Contains(f.Want, "rm ") {
						t.Errorf("%s: %v", r.Step, f)
					}
				}
				if r.Outcome == step.Failed || len(r.Pending()) > 0 {
					t.Errorf("on a finished node %s: %s %v %v", r.Step, r.Outcome, r.Changes, r.Err)
				}
			}
			if len(l.ran) > 0 {
				t.Errorf("ran %v", l.ran)
			}
		})
	}
}

// A CA's file may hold the one that comes next, or the one before, as well.
func TestCABundle(t *testing.T) {
	l := newLab(t)
	complete(t, l, KubeadmConfig{})
	other := read(t, l, "/etc/kubernetes/pki/front-proxy-ca.crt")
	p := pki{host: l.Host, dir: "/etc/kubernetes/pki"}
	put(t, l.Host, "/etc/kubernetes/pki/etcd/ca.crt", string(other)+string(read(t, l, "/etc/kubernetes/pki/etcd/ca.crt")), 0o644)
	if err := p.signed(pkiPair{"etcd/peer", "etcd/ca"}, read(t, l, "/etc/kubernetes/pki/etcd/peer.crt")); err != nil {
		t.Error(err)
	}
	if err := p.signed(pkiPair{"etcd/peer", "front-proxy-ca"}, read(t, l, "/etc/kubernetes/pki/etcd/peer.crt")); err == nil {
		t.Error("another CA's certificate is taken for this one's")
	}
}

func read(t *testing.T, l *lab, path string) []byte {
	t.Helper()
	data, err := l.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A power cut may leave the mark that all is staged, and staged files that are empty: kubeadm
// does not sync what it writes.
func TestStageLostItsBytes(t *testing.T) {
	for _, name := range []string{"ca.key", "etcd/ca.key", "apiserver.crt", "sa.key"} {
		l := newLab(t)
		steps := allPhases(l.init(KubeadmConfig{}))
		if _, err := step.Apply(t.Context(), steps[:2], nil); err != nil {
			t.Fatal(err)
		}
		if err := l.copyMade("etc/kubernetes/pki", stagedPKI); err != nil {
			t.Fatal(err)
		}
		put(t, l.Host, stagedPKI+"/"+name, "", 0o600)
		put(t, l.Host, stagedWhole, "made\n", 0o600)
		if _, err := step.Apply(t.Context(), steps[2:3], nil); err != nil {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

// The unit of an agent that was killed meanwhile is adopted: what it works on is left alone.
func TestPhaseRunning(t *testing.T) {
	for name, make := range map[string]func(Init) step.Step{"certs": Certificates, "kubeconfig": Kubeconfigs, "addon": AddOn, "cluster": AddOn} {
		l := newLab(t)
		i := l.init(KubeadmConfig{})
		if _, err := step.Apply(t.Context(), []step.Step{KubeadmConfigFile(i)}, nil); err != nil {
			t.Fatal(err)
		}
		put(t, l.Host, AdminConf, "", 0o600)
		if name == "kubeconfig" {
			if err := l.Remove(AdminConf); err != nil {
				t.Fatal(err)
			}
		}
		for _, dir := range []string{stagedPKI, stagedKubeconfigs} {
			put(t, l.Host, dir+"/kept", "x", 0o600)
		}
		l.units["nodeagent-kubeadm-"+name+".service"] = systemd.State{LoadState: "loaded", ActiveState: "active", SubState: "running"}
		changes, err := make(i).Check(t.Context())
		if err != nil || len(changes) != 1 || !strings.Contains(changes[0].Have, "is running") {
			t.Errorf("%s: %v, %v", name, changes, err)
		}
		l.runErr["nodeagent-kubeadm-"+name+".service"] = errors.New("ended badly")
		if err := make(i).Apply(t.Context()); err == nil || len(l.ran) != 1 {
			t.Errorf("%s: %v, ran %v", name, err, l.ran)
		}
		if there, err := l.Exists(stagedPKI + "/kept"); err != nil || !there {
			t.Errorf("%s: the directory it works in was emptied: %v", name, err)
		}
	}
}

// A phase that fails is quoted, without its secrets.
func TestPhaseFails(t *testing.T) {
	l := newLab(t)
	unit := "nodeagent-kubeadm-preflight.service"
	l.runErr[unit] = &systemd.UnitError{Unit: unit, LogFile: kubeadmDir + "/preflight.out", Result: systemd.Result{Result: "exit-code", Code: 1}}
	_, err := step.Apply(t.Context(), allPhases(l.init(KubeadmConfig{})), nil)
	wantError(t, err, "kubeadm/preflight: apply: run "+unit+": ended with exit-code 1; see: "+kubeadmLog, "Using token: abcdef[redacted]")
	if there, err := l.Exists(passedFile); err != nil || there {
		t.Errorf("passed: %v", err)
	}
}

// kubeadm's preflight is passed for one configuration and one boot.
func TestPreflightPassed(t *testing.T) {
	l := newLab(t)
	s := []step.Step{KubeadmConfigFile(l.init(KubeadmConfig{})), KubeadmPreflight(l.init(KubeadmConfig{}))}
	for n, change := range []func(){
		func() {},
		func() { put(t, l.Host, "/proc/sys/kernel/random/boot_id", "second-boot\n", 0o444) },
		func() { put(t, l.Host, kubeadmFile, "another", 0o600) },
	} {
		change()
		for range 2 {
			if _, err := step.Apply(t.Context(), s, nil); err != nil {
				t.Fatal(err)
			}
		}
		if len(l.ran) != n+1 {
			t.Errorf("%d: ran %d times", n, len(l.ran))
		}
	}
}

// What the operator has kubeadm leave out is neither looked for nor made.
func TestPhasesSkipped(t *testing.T) {
	const whole = " --skip-phases=preflight,certs,kubeconfig,etcd,control-plane,kubelet-start,wait-control-plane,upload-certs,show-join-command,"
	for skip, want := range map[string]string{
		"certs, kubeconfig, addon": "preflight etcd control-plane kubelet-start upload-config mark-control-plane bootstrap-token kubelet-finalize",
		"addon/kube-proxy":         "preflight certs kubeconfig etcd control-plane kubelet-start upload-config mark-control-plane bootstrap-token kubelet-finalize addon coredns",
		"addon/coredns":            "preflight certs kubeconfig etcd control-plane kubelet-start upload-config mark-control-plane bootstrap-token kubelet-finalize addon kube-proxy",
		// kubeadm's own list is not looked at beside the flag.
		"certs, kubeconfig, mark-control-plane": "preflight etcd control-plane kubelet-start" + whole + "certs,kubeconfig,mark-control-plane",
		"addon/kube-proxy, bootstrap-token":     "preflight certs kubeconfig etcd control-plane kubelet-start" + whole + "addon/kube-proxy,bootstrap-token",
	} {
		l := newLab(t)
		l.partial = !strings.Contains(want, "--skip")
		if strings.HasPrefix(skip, "certs") { // the operator brings them
			if err := errors.Join(l.copyMade("etc/kubernetes/pki", "/etc/kubernetes/pki"), l.copyMade("etc/kubernetes", "/etc/kubernetes")); err != nil {
				t.Fatal(err)
			}
		}
		kubeadm := KubeadmConfig{InitConfiguration: passthrough(t, "skipPhases: ["+skip+"]")}
		for range 2 {
			if _, err := step.Apply(t.Context(), allPhases(l.init(kubeadm)), nil); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for _, ran := range l.ran {
			if strings.HasPrefix(ran.Argv[2], "--") {
				got = append(got, ran.Argv[2])
				continue
			}
			got = append(got, ran.Argv[3])
			if ran.Argv[3] == "addon" {
				got = append(got, ran.Argv[4])
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: ran %v", skip, got)
		}
	}
}

// The start of the control plane is waited for, and so is its return after a reboot.
func TestWaitControlPlane(t *testing.T) {
	l := newLab(t)
	complete(t, l, KubeadmConfig{})
	s := []step.Step{WaitControlPlane(l.init(KubeadmConfig{}))}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		l.notReady = 20
		results, err := step.Apply(t.Context(), s, nil)
		if err != nil || results[0].Outcome != step.Applied || len(l.ran) > 0 {
			t.Errorf("%v, %v, ran %v", results, err, l.ran)
		}
		if have := results[0].Changes[0].Have; have != "connection refused" || time.Since(began) < 30*time.Second {
			t.Errorf("%q after %s", have, time.Since(began))
		}
		l.notReady = 1 << 30
		began = time.Now()
		_, err = step.Apply(t.Context(), s, nil)
		wantError(t, err, "waited 10m0s", "connection refused", "container etcd: not started yet")
		if took := time.Since(began); took != DefaultTimeouts().ControlPlane {
			t.Errorf("gave up after %s", took)
		}
	})
	_, err := AddOn(l.init(KubeadmConfig{})).Check(t.Context())
	if !errors.Is(err, step.Blocked{On: WaitStep}) {
		t.Errorf("while the API does not answer: %v", err)
	}
}

func TestPhasesOffline(t *testing.T) {
	l := newLab(t)
	l.Offline = true
	for _, s := range allPhases(l.init(KubeadmConfig{})) {
		if _, err := s.Check(t.Context()); !errors.Is(err, step.Blocked{On: step.Boot}) {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
}
