package bootstrap

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
)

const (
	sourcesList = "/etc/apt/sources.list"
	sourcesDir  = "/etc/apt/sources.list.d"
)

// sourceName is the name of a file that apt reads in sources.list.d, sources.list(5).
var sourceName = regexp.MustCompile(`^[A-Za-z0-9_.-]+\.(list|sources)$`)

// findSource is the file in which apt is told of packages at repository, "" when none is but
// the one named except.
func findSource(h *host.Host, repository, except string) (string, error) {
	paths := []string{sourcesList}
	entries, err := h.ReadDir(sourcesDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("look at apt's sources: %w", err)
	}
	for _, e := range entries {
		if path := sourcesDir + "/" + e.Name(); sourceName.MatchString(e.Name()) && path != except && !e.IsDir() {
			paths = append(paths, path)
		}
	}
	for _, path := range paths {
		data, err := h.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("look at apt's sources: %w", err)
		}
		parse := parseSourcesList
		if strings.HasSuffix(path, ".sources") {
			parse = parseSources
		}
		if slices.ContainsFunc(parse(data), func(u string) bool { return sameURL(u, repository) }) {
			return path, nil
		}
	}
	return "", nil
}

// parseSourcesList are the URLs of binary packages in the one-line format, sources.list(5):
//
//	deb [ option=value … ] URL suite component…
//
// Lines that apt would refuse are passed over.
func parseSourcesList(data []byte) []string {
	var urls []string
	for line := range bytes.Lines(data) {
		text, _, _ := strings.Cut(string(line), "#")
		words := strings.Fields(text)
		if len(words) < 3 || words[0] != "deb" {
			continue
		}
		words = words[1:]
		if strings.HasPrefix(words[0], "[") {
			closed := slices.IndexFunc(words, func(w string) bool { return strings.HasSuffix(w, "]") })
			if closed < 0 {
				continue
			}
			words = words[closed+1:]
		}
		if len(words) >= 2 {
			urls = append(urls, words[0])
		}
	}
	return urls
}

// parseSources are the URLs of binary packages in the deb822 format, sources.list(5), but for
// paragraphs that are not enabled.
func parseSources(data []byte) []string {
	var urls []string
	fields, key := map[string]string{}, ""
	end := func() {
		types := strings.Fields(fields["types"])
		if slices.Contains(types, "deb") && !isNo(fields["enabled"]) {
			urls = append(urls, strings.Fields(fields["uris"])...)
		}
		fields, key = map[string]string{}, ""
	}
	for line := range bytes.Lines(data) {
		text := strings.TrimRight(string(line), " \t\r\n")
		switch {
		case strings.HasPrefix(text, "#"):
		case text == "":
			end()
		case text[0] == ' ' || text[0] == '\t':
			fields[key] += " " + strings.TrimSpace(text)
		default:
			name, value, _ := strings.Cut(text, ":")
			key = strings.ToLower(strings.TrimSpace(name))
			fields[key] = strings.TrimSpace(value)
		}
	}
	end()
	return urls
}

// isNo reads a yes or no as apt does.
func isNo(word string) bool {
	return slices.Contains([]string{"no", "false", "without", "off", "disable", "0"}, strings.ToLower(word))
}

// sameURL says whether two URLs are of one repository. The last slashes, and those of file://,
// are a matter of taste.
func sameURL(a, b string) bool { return plainURL(a) == plainURL(b) }

func plainURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return text
	}
	path := u.Path
	if path == "" {
		path = u.Opaque
	}
	return strings.ToLower(u.Scheme) + "://" + strings.ToLower(u.Host) + "/" + strings.Trim(path, "/")
}
