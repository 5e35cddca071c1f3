//go:build integration

package s3_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/test/lab"
)

// user makes an account that may do nothing yet.
func (s *server) user(t *testing.T, access, secret string) {
	t.Helper()
	s.administer(t, "create-user", "--access", access, "--secret", secret, "--role", "user")
}

func (s *server) administer(t *testing.T, args ...string) {
	t.Helper()
	bin, err := lab.Versitygw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	args = append([]string{"admin", "--access", accessKey, "--secret", secretKey, "--endpoint-url", "http://" + s.addr}, args...)
	if out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "versitygw"), args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestWrongKeys(t *testing.T) {
	server := start(t, false)
	put(t, server.node(t).store(t), "a", content(10))
	node := server.node(t)
	store := node.store(t)
	node.keys(t, "AKIDSTRANGER", secretKey)
	refused(t, store, etcdbackup.ErrDenied, "InvalidAccessKeyId", node.cfg.AccessKeyFile)
	node.keys(t, accessKey, "wrong-secret")
	refused(t, store, etcdbackup.ErrDenied, "SignatureDoesNotMatch", node.cfg.SecretKeyFile)
	// Rotated keys are used without anything being started anew.
	node.keys(t, accessKey, secretKey)
	wantContent(t, store, "a", content(10))
	server.user(t, "AKIDROTATED", "second-secret")
	server.policy(t, "AKIDROTATED", documentedActions(t)...)
	node.keys(t, "AKIDROTATED", "second-secret")
	wantContent(t, store, "a", content(10))
	server.administer(t, "delete-user", "--access", "AKIDROTATED")
	refused(t, store, etcdbackup.ErrDenied, "InvalidAccessKeyId")
}

func TestKeysThatOthersCanRead(t *testing.T) {
	server := start(t, false)
	node := server.node(t)
	store := node.store(t)
	if err := os.Chmod(filepath.Join(node.Root, node.cfg.SecretKeyFile), 0o644); err != nil {
		t.Fatal(err)
	}
	refused(t, store, nil, "secretKeyFile", "others can read", "chmod 0600")
	if err := os.Remove(filepath.Join(node.Root, node.cfg.SecretKeyFile)); err != nil {
		t.Fatal(err)
	}
	for method, err := range everything(t.Context(), store) {
		if err == nil || !strings.Contains(err.Error(), "secretKeyFile") {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// Keys that systemd hands to the unit.
func TestKeysFromCredentials(t *testing.T) {
	server := start(t, false)
	node := server.node(t)
	node.cfg.AccessKeyFile, node.cfg.SecretKeyFile = "credential:s3-access", "credential:s3-secret"
	t.Setenv("CREDENTIALS_DIRECTORY", "/run/credentials/nodeagent.service")
	node.Offline = false // a machine of its own that runs
	for name, key := range map[string]string{"s3-access": accessKey, "s3-secret": secretKey} {
		node.write(t, "/run/credentials/nodeagent.service/"+name, key, 0o400)
	}
	store := node.store(t)
	put(t, store, "a", content(10))
	wantContent(t, store, "a", content(10))
}

func TestWrongAuthority(t *testing.T) {
	server := start(t, true)
	node := server.node(t)
	other, _ := certificate(t, "127.0.0.1")
	pem, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	node.write(t, node.cfg.CAFile, string(pem), 0o644)
	refused(t, node.store(t), nil, "unknown authority", node.cfg.CAFile)
	node.write(t, node.cfg.CAFile, "nothing", 0o644)
	refused(t, node.store(t), nil, "caFile", "no certificate")
	if err := os.Chmod(filepath.Join(node.Root, node.cfg.CAFile), 0o666); err != nil {
		t.Fatal(err)
	}
	refused(t, node.store(t), nil, "caFile", "others can write")
	node.cfg.CAFile = ""
	refused(t, node.store(t), nil, "unknown authority", "caFile")

	plain := start(t, false)
	node.cfg.Endpoint = "https://" + plain.addr
	refused(t, node.store(t), nil, "speaks http")
}

func TestNoSuchBucket(t *testing.T) {
	server := start(t, false)
	node := server.node(t)
	node.cfg.Bucket = "absent"
	refused(t, node.store(t), etcdbackup.ErrNoStore, "NoSuchBucket", "makes no buckets")
	buckets, err := server.admin.ListBuckets(t.Context())
	if err != nil || len(buckets) != 1 {
		t.Errorf("buckets: %v, %v", buckets, err)
	}
}

// documentedActions are those that docs/backups.md says a key has to be allowed.
func documentedActions(t *testing.T) []string {
	t.Helper()
	doc, err := os.ReadFile("../../../docs/backups.md")
	if err != nil {
		t.Fatal(err)
	}
	_, policy, found := strings.Cut(string(doc), `"Statement"`)
	policy, _, ended := strings.Cut(policy, "```")
	if !found || !ended {
		t.Fatal("docs/backups.md has no policy")
	}
	var actions []string
	for word := range strings.SplitSeq(policy, `"`) {
		if strings.HasPrefix(word, "s3:") {
			actions = append(actions, word)
		}
	}
	return actions
}

// policy allows an account some actions on the bucket and what is in it, and nothing else to anybody.
func (s *server) policy(t *testing.T, access string, actions ...string) {
	t.Helper()
	var statements []string
	for _, action := range actions {
		resource := "arn:aws:s3:::" + bucket + "/*"
		if strings.Contains(action, "Bucket") {
			resource = "arn:aws:s3:::" + bucket
		}
		statements = append(statements, `{"Effect": "Allow", "Principal": "`+access+`", "Action": "`+action+`", "Resource": "`+resource+`"}`)
	}
	policy := `{"Version": "2012-10-17", "Statement": [` + strings.Join(statements, ",") + `]}`
	if err := s.admin.SetBucketPolicy(t.Context(), bucket, policy); err != nil {
		t.Fatalf("%v\n%s", err, policy)
	}
}

// The policy in the documentation is enough, and nothing of what a store does works without its part.
func TestPolicyOfTheDocumentation(t *testing.T) {
	server := start(t, false)
	server.user(t, "AKIDLIMITED", "limited-secret")
	node := server.node(t)
	node.keys(t, "AKIDLIMITED", "limited-secret")
	store := node.store(t)
	refused(t, store, etcdbackup.ErrDenied, "AccessDenied", "docs/backups.md", node.cfg.AccessKeyFile)
	actions := documentedActions(t)
	server.policy(t, "AKIDLIMITED", actions...)
	left(t, server, "parts")
	put(t, store, "whole", content(1000))
	put(t, store, "parts", content(manyParts))
	wantContent(t, store, "parts", content(manyParts))
	wantNames(t, store, "whole", "parts")
	if err := store.Delete(t.Context(), "whole"); err != nil {
		t.Error(err)
	}
	if unfinished := uploads(t, server); len(unfinished) != 0 {
		t.Errorf("unfinished uploads: %q", unfinished)
	}
	for _, without := range []string{"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"} {
		var rest []string
		for _, action := range actions {
			if action != without {
				rest = append(rest, action)
			}
		}
		if len(rest) == len(actions) {
			t.Errorf("%s is not in the documentation", without)
		}
		server.policy(t, "AKIDLIMITED", rest...)
		if err := server.admin.RemoveObject(t.Context(), bucket, "b", minio.RemoveObjectOptions{}); err != nil {
			t.Fatal(err)
		}
		denied := 0
		for _, err := range everything(t.Context(), store) {
			if err != nil && strings.Contains(err.Error(), "AccessDenied") {
				denied++
			}
		}
		if denied == 0 {
			t.Errorf("nothing is denied without %s", without)
		}
	}
}

// left leaves an upload of an object unfinished, as a process does that is killed.
func left(t *testing.T, server *server, key string) (id string) {
	t.Helper()
	id, err := minio.Core{Client: server.admin}.NewMultipartUpload(t.Context(), bucket, key, minio.PutObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

const (
	oldOfOurs = "20261120T120000Z-cp-1-100.db.zst.age"
	newOfOurs = "20261121T120000Z-cp-1-200.db.zst.age"
	ofOthers  = "20261120T120000Z-cp-2-100.db.zst.age"
)

// What a killed upload leaves is removed by the next one of the same object, and by any of the same host
// a day later. Others' uploads are left alone.
func TestLeftoversAreSwept(t *testing.T) {
	server := start(t, false)
	present := "20261122T120000Z-cp-1-300.db.zst.age"
	left(t, server, present)
	for _, key := range []string{oldOfOurs, ofOthers, "foreign", "deeper/" + oldOfOurs} {
		left(t, server, key)
	}
	yesterday := time.Now().Add(-25 * time.Hour)
	err := filepath.WalkDir(filepath.Join(server.dir, bucket), func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Chtimes(path, yesterday, yesterday))
	})
	if err != nil {
		t.Fatal(err)
	}
	left(t, server, newOfOurs)
	put(t, server.node(t).store(t), present, content(manyParts))
	want := map[string]bool{newOfOurs: true, ofOthers: true, "foreign": true, "deeper/" + oldOfOurs: true}
	for _, key := range uploads(t, server) {
		if !want[key] {
			t.Errorf("%s is there still", key)
		}
		delete(want, key)
	}
	for key := range want {
		t.Errorf("%s was removed", key)
	}
}

// Without the bucket in the path it is part of the host name, as Amazon has it.
func TestVirtualHost(t *testing.T) {
	resolveToLoopback(t)
	server := start(t, true, "--virtual-domain", "s3.test")
	node := server.node(t)
	_, port, err := net.SplitHostPort(server.addr)
	if err != nil {
		t.Fatal(err)
	}
	node.cfg.Endpoint, node.cfg.PathStyle, node.cfg.Prefix = "https://s3.test:"+port, false, "blue"
	store := node.store(t)
	put(t, store, "a", content(manyParts))
	wantContent(t, store, "a", content(manyParts))
	wantNames(t, store, "a")
	if !strings.Contains(server.out.String(), "/"+bucket) {
		t.Log(server.out.end())
	}
}

// Object lock: what the store refuses to remove is told apart from what the key may not do.
func TestObjectLock(t *testing.T) {
	server := start(t, false)
	node := server.node(t)
	store := node.store(t)
	for _, name := range []string{"held", "kept", "free", "versioned"} {
		put(t, store, name, content(10))
	}
	on := minio.LegalHoldEnabled
	if err := server.admin.PutObjectLegalHold(t.Context(), bucket, "held", minio.PutObjectLegalHoldOptions{Status: &on}); err != nil {
		t.Fatal(err)
	}
	mode, until := minio.Compliance, time.Now().Add(time.Hour)
	for _, name := range []string{"kept", "versioned"} {
		if err := server.admin.PutObjectRetention(t.Context(), bucket, name, minio.PutObjectRetentionOptions{Mode: &mode, RetainUntilDate: &until}); err != nil {
			t.Fatal(err)
		}
	}
	// A bucket with versions, which Amazon's object lock needs, keeps the version and hides it.
	if err := store.Delete(t.Context(), "versioned"); err != nil {
		t.Error(err)
	}
	wantNames(t, store, "held", "kept", "free")
	var versions int
	for o := range server.admin.ListObjects(t.Context(), bucket, minio.ListObjectsOptions{WithVersions: true, Prefix: "versioned"}) {
		if o.Err == nil && !o.IsDeleteMarker {
			versions++
		}
	}
	if versions != 1 {
		t.Errorf("%d versions are kept", versions)
	}
	// Where it is not hidden but refused, the object says why.
	server.user(t, "AKIDKEEPER", "keeper-secret")
	server.policy(t, "AKIDKEEPER", "s3:ListBucket", "s3:GetObject", "s3:PutObject")
	node.keys(t, "AKIDKEEPER", "keeper-secret")
	for _, name := range []string{"held", "kept"} {
		if err := store.Delete(t.Context(), name); !errors.Is(err, etcdbackup.ErrLocked) || errors.Is(err, etcdbackup.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := store.Delete(t.Context(), "free"); errors.Is(err, etcdbackup.ErrLocked) || !errors.Is(err, etcdbackup.ErrDenied) {
		t.Errorf("free: %v", err)
	}
}
