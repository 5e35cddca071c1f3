package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/nodeagent/nodeagent/pkg/certs/certstest"
	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/host"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"nodeagent": main})
}

// TestScripts runs the program itself, as a process of its own, on machine images in
// testdata/script. Beside testscript's own commands there are
//
//	exits CODE program args...   the program exits with just that code
//	pki ROOT [FILE VALIDITY]...  a kubeadm PKI, where a file may be valid for less than a year
//	etcd ROOT                    a real etcd runs, as the image's own
//	spoil DIR                    a byte of the newest snapshot in DIR is another; twice, it is as it was
//	newest DIR FILE              the newest snapshot in DIR is unpacked to FILE
//	agekey IDENTITY CONFIG       a new age identity, and a configuration that encrypts backups for it
//	hold ROOT LOCK PURPOSE       somebody holds the lock until the script ends
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Deadline:            time.Now().Add(2 * time.Minute),
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exits, "agekey": agekey, "pki": pki, "etcd": etcdMember, "hold": hold, "spoil": spoil, "newest": newest,
		},
	})
}

func agekey(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: agekey IDENTITY CONFIG")
	}
	key, err := age.GenerateX25519Identity()
	ts.Check(err)
	ts.Check(os.WriteFile(args[0], []byte(key.String()+"\n"), 0o600))
	ts.Check(os.WriteFile(args[1], []byte("role: control-plane\nbackup: {recipients: ["+key.Recipient().String()+"]}\n"), 0o600))
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code program args...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func pki(ts *testscript.TestScript, _ bool, args []string) {
	o := certstest.Options{Now: time.Now(), Kubelet: true, Validity: map[string]time.Duration{}}
	for i := 1; i+1 < len(args); i += 2 {
		validity, err := time.ParseDuration(args[i+1])
		ts.Check(err)
		o.Validity[args[i]] = validity
	}
	ts.Check(certstest.Write(ts.MkAbs(args[0]), o))
}

func etcdMember(ts *testscript.TestScript, _ bool, args []string) {
	member, err := etcdtest.Start(host.New(ts.MkAbs(args[0])), ts.MkAbs("etcd-data"))
	ts.Check(err)
	ts.Defer(func() { ts.Check(member.Close()) })
}

func hold(ts *testscript.TestScript, _ bool, args []string) {
	unlock, err := host.New(ts.MkAbs(args[0])).TryLock(args[1], args[2])
	ts.Check(err)
	ts.Defer(unlock)
}

func newestSnapshot(ts *testscript.TestScript, dir string) string {
	files, err := filepath.Glob(filepath.Join(ts.MkAbs(dir), "*.db.zst"))
	ts.Check(err)
	return slices.Max(files)
}

func newest(ts *testscript.TestScript, _ bool, args []string) {
	packed, err := os.Open(newestSnapshot(ts, args[0]))
	ts.Check(err)
	defer packed.Close()
	plain, err := etcdbackup.Unwrap(packed, true, false, etcdbackup.Identities{})
	ts.Check(err)
	data, err := io.ReadAll(plain)
	ts.Check(errors.Join(err, plain.Close(), os.WriteFile(ts.MkAbs(args[1]), data, 0o600)))
}

func spoil(ts *testscript.TestScript, _ bool, args []string) {
	newest := newestSnapshot(ts, args[0])
	data, err := os.ReadFile(newest)
	ts.Check(err)
	data[len(data)/2] ^= 1
	ts.Check(os.WriteFile(newest, data, 0o600))
}
