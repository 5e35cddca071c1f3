package bootstrap

import (
	"errors"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/host"
)

func TestDiskSpace(t *testing.T) {
	one := func(free, size uint64) func(string) Space {
		return func(string) Space { return Space{1, free, size} }
	}
	etcdAlone := func(free uint64) func(string) Space {
		return func(path string) Space {
			if strings.HasSuffix(path, "/etcd") {
				return Space{2, free, 4 * gib}
			}
			return Space{1, 30 * gib, 40 * gib}
		}
	}
	for name, test := range map[string]struct {
		role  Role
		files map[string]string
		space func(path string) Space
		want  string // "" or "stop" or "finding", and what it says
		says  []string
	}{
		"enough":              {role: ControlPlane, space: one(20*gib, 40*gib)},
		"tight":               {role: ControlPlane, space: one(9*gib, 12*gib), want: "finding", says: []string{"/var/lib/containerd, /var/lib/kubelet, /var/lib/etcd, /var/lib/nodeagent: 9216 MiB of 12288 MiB free", "images 2.0 GiB, pods 1.0 GiB, etcd 2.5 GiB, backups 2.0 GiB, 15 % of the file system", "grow the disk"}},
		"a worker needs less": {role: Worker, space: one(9*gib, 12*gib)},
		"a small VM": {role: ControlPlane, space: one(5*gib, 8*gib), want: "finding", says: []string{
			"9154 MiB free (images", // 7.5 GiB and 18 % of 8 GiB
		}},
		"too small":            {role: ControlPlane, space: one(3*gib, 8*gib), want: "stop", says: []string{"at least 3148 MiB free", "kubelet evicts"}},
		"a full worker":        {role: Worker, space: one(gib, 40*gib), want: "stop", says: []string{"/var/lib/containerd, /var/lib/kubelet: 1024 MiB"}},
		"a member with room":   {role: ControlPlane, files: map[string]string{KubeletConf: "x"}, space: one(8*gib, 40*gib)},
		"a member that fills":  {role: ControlPlane, files: map[string]string{KubeletConf: "x"}, space: one(7*gib, 40*gib), want: "finding", says: []string{"7372 MiB free (15 %"}},
		"a member that evicts": {role: ControlPlane, files: map[string]string{KubeletConf: "x"}, space: one(5*gib, 40*gib), want: "stop", says: []string{"at least 6143 MiB free, with 15 %"}},
		"etcd's disk":          {role: ControlPlane, files: map[string]string{etcdDataDir + "/lost+found/x": "x"}, space: etcdAlone(3 * gib)},
		"etcd's disk is tight": {role: ControlPlane, files: map[string]string{etcdDataDir + "/lost+found/x": "x"}, space: etcdAlone(2 * gib), want: "finding", says: []string{"/var/lib/etcd: 2048 MiB of 4096 MiB free", "2560 MiB free (etcd 2.5 GiB): "}},
		"etcd's disk is full":  {role: Etcd, files: map[string]string{etcdDataDir + "/lost+found/x": "x"}, space: etcdAlone(gib / 4), want: "stop", says: []string{"at least 512 MiB free: "}},
		"no file system":       {role: ControlPlane, space: one(0, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			h := &host.Host{Root: tree(t, goodHost, test.files)}
			deps := goodDeps()
			deps.Space = func(path string) (Space, error) { return test.space(path), nil }
			changes, err := preflight{PreflightDeps: deps, host: h, role: test.role}.disk(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if test.want == "" {
				if len(changes) != 0 {
					t.Errorf("it says %v", changes)
				}
				return
			}
			if len(changes) != 1 || changes[0].Manual != (test.want == "finding") {
				t.Fatalf("want one %s, have %+v", test.want, changes)
			}
			for _, words := range test.says {
				if !strings.Contains(changes[0].String(), words) {
					t.Errorf("%s\ndoes not say %q", changes[0], words)
				}
			}
		})
	}
	deps := goodDeps()
	deps.Space = func(string) (Space, error) { return Space{}, errors.New("boom") }
	_, err := preflight{PreflightDeps: deps, host: &host.Host{Root: t.TempDir()}, role: Worker}.disk(t.Context())
	wantError(t, err, "read free space of /var/lib/containerd: boom")
}

func TestSpaceOfTheRealMachine(t *testing.T) {
	here, err := spaceOf(t.TempDir())
	if err != nil || here.Size == 0 || here.Free > here.Size {
		t.Errorf("%+v, %v", here, err)
	}
	if proc, err := spaceOf("/proc"); err != nil || proc.Device == here.Device {
		t.Errorf("/proc is on another file system than %+v: %+v, %v", here, proc, err)
	}
	if _, err := spaceOf("/nowhere/at/all"); err == nil {
		t.Error("what is not there has space")
	}
}
