package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// shownChecks is how many failing checks an error names.
const shownChecks = 5

// Ready is nil when the API server says that it is ready. Otherwise the error names the checks
// that fail, or says why the server was not reached.
func (c *Client) Ready(ctx context.Context) error {
	body, err := c.do(ctx, request{
		method: http.MethodGet, path: "/readyz", query: url.Values{"verbose": {""}}, accept: "*/*",
	})
	var status *StatusError
	if errors.As(err, &status) {
		if failing := failingChecks(string(body)); failing != "" {
			return fmt.Errorf("the API server is not ready: %s", failing)
		}
	}
	if IsForbidden(err) {
		// So it is with each new cluster, until the server has made its first roles.
		return fmt.Errorf("the API server answers, and has no role yet that lets this user ask: %w", err)
	}
	if err != nil {
		return fmt.Errorf("ask whether the API server is ready: %w", err)
	}
	return nil
}

// failingChecks is the names of the checks marked "[-]" in the verbose answer, in short.
func failingChecks(body string) string {
	var names []string
	for line := range strings.Lines(body) {
		rest, ok := strings.CutPrefix(line, "[-]")
		if name, _, _ := strings.Cut(strings.TrimSpace(rest), " "); ok && name != "" {
			names = append(names, name)
		}
	}
	if more := len(names) - shownChecks; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:shownChecks], ", "), more)
	}
	return strings.Join(names, ", ")
}
