package bootstrap

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func FuzzOSRelease(f *testing.F) {
	for _, seed := range []string{"", "ID=debian\nVERSION_ID=\"12\"\n", "# ID=x\n=\n\"=\"\nID='a\r\n", "ENABLED=yes # x", "6.12.57+deb13-cloud-amd64", "5.x", "9999999999999999999.1"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for key, value := range osRelease(data) {
			if strings.HasPrefix(key, "#") || !bytes.Contains(data, []byte(key)) || !bytes.Contains(data, []byte(value)) {
				t.Errorf("%q is %q in %q", key, value, data)
			}
		}
		if v, err := kernelVersion(string(data)); err == nil && (v[0] < 0 || v[1] < 0) {
			t.Errorf("%q is version %v", data, v)
		}
	})
}

// What an operator passes through to kubeadm is in what is rendered, and of ours everything
// that the operator does not speak of.
func FuzzRenderKubeadm(f *testing.F) {
	for _, seed := range []string{
		"{}", "networking: {podSubnet: 10.0.0.0/8}", "nodeRegistration: {kubeletExtraArgs: [{name: node-ip, value: x}, {name: v, value: '2'}]}",
		"nodeRegistration: {kubeletExtraArgs: [x]}", "kind: Other", "a: &a {b: c}\nd: *a", "localAPIEndpoint: null", "nodeRegistration: [1]", "? ''\n: |\n  x\n", "a: !!binary aGk=",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		theirs, err := NewPassthrough(text)
		if err != nil || theirs.IsZero() {
			return
		}
		cluster := Cluster{NodeName: "n", Address: netip.MustParseAddr("192.0.2.1"), KubernetesVersion: "v1.36.3"}
		plain := documents(t, cluster)
		cluster.Kubeadm = KubeadmConfig{InitConfiguration: theirs, ClusterConfiguration: theirs}
		for i, doc := range documents(t, cluster) {
			if i > 1 {
				if !sameYAML(doc, plain[i]) {
					t.Errorf("document %d changed", i)
				}
				continue
			}
			onlyTheirs(t, "", doc, plain[i], theirs.node)
		}
	})
}

func documents(t *testing.T, c Cluster) []*yaml.Node {
	t.Helper()
	data, err := RenderKubeadm(c)
	if err != nil {
		t.Fatal(err)
	}
	var out []*yaml.Node
	for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil || len(doc.Content) == 0 {
			t.Fatalf("what was rendered cannot be read: %v\n%s", err, data)
		}
		out = append(out, doc.Content[0])
	}
}

// onlyTheirs wants of a mapping that was rendered: of ours what theirs does not have, and theirs.
func onlyTheirs(t *testing.T, path string, have, ours, theirs *yaml.Node) {
	t.Helper()
	for i := 0; i+1 < len(ours.Content); i += 2 {
		key := ours.Content[i].Value
		at := indexOf(have, key)
		if at < 0 || indexOf(theirs, key) < 0 && !sameYAML(have.Content[at], ours.Content[i+1]) {
			t.Errorf("%s.%s of ours is lost", path, key)
		}
	}
	for i := 0; i+1 < len(theirs.Content); i += 2 {
		key, want := theirs.Content[i].Value, theirs.Content[i+1]
		at := indexOf(have, key)
		if at < 0 {
			t.Errorf("%s.%s of theirs is lost", path, key)
			continue
		}
		was := indexOf(ours, key)
		switch {
		case was < 0 || ours.Content[was].Kind != yaml.MappingNode || want.Kind != yaml.MappingNode:
			if was >= 0 && isArguments(ours.Content[was]) && isArguments(want) {
				continue // merged by name
			}
			if !sameYAML(have.Content[at], want) {
				t.Errorf("%s.%s of theirs has changed", path, key)
			}
		default:
			onlyTheirs(t, path+"."+key, have.Content[at], ours.Content[was], want)
		}
	}
}

// sameYAML says that two nodes mean the same, however they are written.
func sameYAML(a, b *yaml.Node) bool {
	same := func(a, b *yaml.Node) bool { return sameYAML(a, b) }
	if a.Kind != b.Kind || a.ShortTag() != b.ShortTag() || len(a.Content) != len(b.Content) {
		return false
	}
	if a.Kind == yaml.ScalarNode {
		return a.Value == b.Value || a.ShortTag() == "!!null"
	}
	return slices.EqualFunc(a.Content, b.Content, same)
}
