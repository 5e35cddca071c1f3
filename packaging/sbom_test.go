package main

import (
	"debug/buildinfo"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// goBuild compiles this program itself, which has dependencies, or another one.
func goBuild(t *testing.T, pkg string) (binary string) {
	t.Helper()
	binary = filepath.Join(t.TempDir(), "nodeagent")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", binary, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
	return binary
}

// The bill lists what is in the binary, each module with its version and sum, and nothing else.
func TestBillOfMaterials(t *testing.T) {
	in := Input{Version: "0.1.0+5.gabcdef0", Binary: goBuild(t, "."), Time: time.Unix(1_790_000_000, 0)}
	text, err := sbom(in)
	if err != nil {
		t.Fatal(err)
	}
	var b bom
	if err := json.Unmarshal(text, &b); err != nil {
		t.Fatal(err)
	}
	if b.Format != "CycloneDX" || b.SpecVersion != "1.6" || b.Version != 1 || !b.Metadata.Timestamp.Equal(in.Time) {
		t.Errorf("its head is %+v", b)
	}
	// The schema's own pattern.
	if !regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`).MatchString(b.SerialNumber) {
		t.Errorf("serial number is %s", b.SerialNumber)
	}
	if want := "pkg:golang/github.com/nodeagent/nodeagent/packaging@0.1.0%2B5.gabcdef0"; b.Metadata.Component.PURL != want {
		t.Errorf("it is about %s, want %s", b.Metadata.Component.PURL, want)
	}
	compareWithBuildInfo(t, in.Binary, b)

	again, err := sbom(in)
	if err != nil || string(again) != string(text) {
		t.Errorf("a second one of the same binary differs (%v)", err)
	}
}

func compareWithBuildInfo(t *testing.T, binary string, b bom) {
	t.Helper()
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if len(info.Deps) < 5 {
		t.Fatalf("the binary has %d dependencies: it is no test of a bill", len(info.Deps))
	}
	want := map[string]string{"stdlib@" + strings.TrimPrefix(info.GoVersion, "go"): ""}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		want[m.Path+"@"+m.Version] = m.Sum
	}
	refs := map[string]bool{}
	for _, c := range b.Components {
		id, sum := c.Name+"@"+c.Version, ""
		for _, p := range c.Properties {
			if p.Name == "go:sum" {
				sum = p.Value
			}
		}
		if have, ok := want[id]; !ok || have != sum {
			t.Errorf("the bill has %s with sum %q, the binary has it: %v, with %q", id, sum, ok, have)
		}
		delete(want, id)
		refs[c.Ref] = true
	}
	for id := range want {
		t.Errorf("the binary has %s, the bill has not", id)
	}
	if len(b.Dependencies) != 1 || b.Dependencies[0].Ref != b.Metadata.Component.Ref || len(b.Dependencies[0].DependsOn) != len(refs) {
		t.Fatalf("dependencies are %+v", b.Dependencies)
	}
	for _, ref := range b.Dependencies[0].DependsOn {
		if !refs[ref] {
			t.Errorf("%s is depended on and no component, or twice", ref)
		}
		delete(refs, ref)
	}
}
