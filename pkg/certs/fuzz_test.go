package certs

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"path"
	"strings"
	"testing"
)

// canary stands for a key: whatever the input around it, no error may hold it.
const canary = "TUlHSEFnRUFNQk1HQnlxR1NNNDlBZ0VHQ0NxR1NNNDlBd0VIQkcwd2F3SUJBUVFn"

func FuzzReadPEM(f *testing.F) {
	block := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}))
	for _, seed := range []string{"", "\n", block, block + block, block[:30], "-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n", "-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----\n", "-----BEGIN CERTIFICATE-----\nProc-Type: %s\n\nAAAA\n-----END CERTIFICATE-----\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		data = []byte(strings.ReplaceAll(string(data), "%s", canary))
		got, err := readPEM(data)
		if err == nil && len(got.certificates) == 0 {
			t.Error("neither a certificate nor an error")
		}
		if err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("the error quotes the data: %v", err)
		}
		for i, c := range got.certificates {
			if c.Index < i {
				t.Errorf("certificate %d has index %d", i, c.Index)
			}
		}
	})
}

func FuzzReadKubeconfig(f *testing.F) {
	for _, seed := range []string{
		"", "users: 7", "users:\n- name: a\n  user: {client-certificate-data: AAAA, client-key-data: %s}\n",
		"users: [{name: a, user: {client-certificate-data: '%s'}}]", "clusters: [{name: a, cluster: {certificate-authority: /x}}]",
		"a: *%s\n", "{%s: [}", "- %s\n%s: x", "\"%s", "? [%s]\n: x\n", "users: %s", "users: [{user: '%s'}]", "!!binary '%s'",
		"users: &%s [*%s]", "users: !%s x", "a: !!int %s", "a: !!float %s", "a: !!timestamp %s", "a: |%s\n", "%s: 1\n%s: 2\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		data = []byte(strings.ReplaceAll(string(data), "%s", canary))
		sources, err := readKubeconfig(data)
		// A user's name is told: that is what an operator goes by.
		named := false
		for _, key := range []string{"name", "Name", "NAME"} {
			named = named || strings.Contains(string(data), key)
		}
		if err != nil && !named && strings.Contains(err.Error(), canary) {
			t.Errorf("the error quotes the data: %v", err)
		}
		for _, s := range sources {
			if (s.file == "") == (s.pem == nil) {
				t.Errorf("%s: file %q and %d bytes", s.owner, s.file, len(s.pem))
			}
			if s.file == "" {
				if _, err := readPEM(s.pem); err != nil && strings.Contains(err.Error(), canary) {
					t.Errorf("%s: the error quotes the data: %v", s.owner, err)
				}
			}
		}
	})
}

// What a manifest names is an absolute path of the host, whatever the manifest is.
func FuzzNamedByPod(f *testing.F) {
	for _, seed := range []string{
		"", "spec: 7", "spec: {containers: [{command: [a, -f=/x/b.crt], volumeMounts: [{name: v, mountPath: /x}]}], volumes: [{name: v, hostPath: {path: /y}}]}",
		"spec: {containers: [{args: [--kubeconfig, /x], volumeMounts: [{name: v, mountPath: x}]}], volumes: [{name: v, hostPath: {path: y}}]}",
		"spec: {containers: [{args: [-a=/../b.pem, --b], volumeMounts: [{name: v, mountPath: /}]}], volumes: [{name: v, hostPath: {path: /}}]}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, file := range append(namedByPod(data), namedByKubelet(data)...) {
			if !path.IsAbs(file) || path.Clean(file) != file {
				t.Errorf("%q is named", file)
			}
		}
	})
}

// These are inputs whose values a YAML parser quotes in its message.
func TestKeyIsNotQuoted(t *testing.T) {
	for _, format := range []string{"users: *%s\n", "users:\n- user: {client-key-data: *%s}\n", "users: !!int %s", "users: !!binary '%s!'\n"} {
		data := fmt.Sprintf(format, canary)
		if _, err := readKubeconfig([]byte(data)); err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v", data, err)
		}
	}
	if _, err := base64.StdEncoding.DecodeString(canary); err != nil {
		t.Fatal("the canary is to look like a key")
	}
}
