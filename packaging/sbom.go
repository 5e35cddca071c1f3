package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// bom is a bill of materials in the words of CycloneDX 1.6, and of them the few that a Go binary
// can answer for: https://cyclonedx.org/docs/1.6/json/.
type bom struct {
	Schema       string       `json:"$schema"`
	Format       string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	SerialNumber string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Timestamp time.Time `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	Hashes     []hash     `json:"hashes,omitempty"`
	PURL       string     `json:"purl,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn,omitempty"`
}

// sbom is the bill of materials of in.Binary: the modules that Go's linker wrote into it, and Go's
// own library. Nothing is asked of a network or of go.mod: it lists what is in this file.
func sbom(in Input) ([]byte, error) {
	binary, err := os.ReadFile(in.Binary)
	if err != nil {
		return nil, fmt.Errorf("read binary: %w", err)
	}
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		return nil, fmt.Errorf("read build info of %s: %w", in.Binary, err)
	}
	sum := sha256.Sum256(binary)
	self := component{
		Type: "application", Name: "nodeagent", Version: in.Version, PURL: purl(info.Main.Path, in.Version),
		Hashes: []hash{{"SHA-256", hex.EncodeToString(sum[:])}},
	}
	self.Ref = self.PURL
	for _, s := range info.Settings {
		if slices.Contains([]string{"GOOS", "GOARCH", "CGO_ENABLED", "vcs.revision", "vcs.modified"}, s.Key) {
			self.Properties = append(self.Properties, property{"go:build:" + s.Key, s.Value})
		}
	}
	b := bom{
		Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", SpecVersion: "1.6",
		SerialNumber: serialNumber(sum[:]), Version: 1,
		Metadata:   metadata{Timestamp: in.Time.UTC(), Component: self},
		Components: modules(info),
	}
	all := dependency{Ref: self.Ref} // which module needs which other one a binary does not tell
	for _, c := range b.Components {
		all.DependsOn = append(all.DependsOn, c.Ref)
	}
	b.Dependencies = []dependency{all}
	var text bytes.Buffer
	if err := encode(&text, b); err != nil {
		return nil, fmt.Errorf("write bill of materials: %w", err)
	}
	return text.Bytes(), nil
}

func encode(w io.Writer, b bom) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(b)
}

// modules are what the binary was linked from, Go's library first, then by path.
func modules(info *debug.BuildInfo) []component {
	std, _, _ := strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " ")
	out := []component{{Type: "library", Name: "stdlib", Version: std, PURL: purl("stdlib", std), Ref: purl("stdlib", std)}}
	deps := slices.SortedFunc(slices.Values(info.Deps), func(a, b *debug.Module) int { return cmp.Compare(a.Path, b.Path) })
	for _, m := range deps {
		c := component{Type: "library"}
		if m.Replace != nil { // what was linked is the other one
			c.Properties = append(c.Properties, property{"go:replaces", m.Path + "@" + m.Version})
			m = m.Replace
		}
		c.Name, c.Version, c.PURL = m.Path, m.Version, purl(m.Path, m.Version)
		c.Ref = c.PURL
		if m.Sum != "" { // of the module's tree, as in go.sum, and of no file: so it is no "hash"
			c.Properties = append(c.Properties, property{"go:sum", m.Sum})
		}
		out = append(out, c)
	}
	return out
}

// purl is the package URL of a Go module: https://github.com/package-url/purl-spec. A "+", as in
// "+incompatible", is written in percent.
func purl(path, version string) string {
	return "pkg:golang/" + path + "@" + strings.ReplaceAll(version, "+", "%2B")
}

// serialNumber is a UUID (version 8, one's own making: RFC 9562) of the binary's hash, so that
// the same binary has the same one.
func serialNumber(sum []byte) string {
	u := slices.Clone(sum[:16])
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
