package kube

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// Conflict is a field that another manager has set to something else than the document.
type Conflict struct {
	Manager string // as in the API's managed fields: "kubectl-edit"
	Field   string // ".data.mode"
}

func (c Conflict) String() string { return c.Field + " is set by " + c.Manager }

// ConflictError is a server-side apply that the API refused, since it would have taken fields
// away from other managers.
type ConflictError struct{ Conflicts []Conflict }

func (e *ConflictError) Error() string {
	return e.Fields() + "; leave it out of the manifest, or take it over once: " +
		"kubectl apply --server-side --force-conflicts --field-manager=" + fieldManager + " -f FILE"
}

// Fields is what conflicts, without what to do about it.
func (e *ConflictError) Fields() string {
	words := make([]string, len(e.Conflicts))
	for i, c := range e.Conflicts {
		words[i] = c.String()
	}
	return shorten(words)
}

// shown is how many of several like things a message names.
const shown = 3

// shorten is the list as a message has it.
func shorten(words []string) string {
	if more := len(words) - shown; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(words[:shown], ", "), more)
	}
	return strings.Join(words, ", ")
}

// conflict is the *ConflictError in an answer of the API, or nil.
func conflict(code int, body []byte) *ConflictError {
	if code != http.StatusConflict {
		return nil
	}
	var status struct {
		Details struct {
			Causes []struct{ Reason, Message, Field string }
		}
	}
	if err := json.Unmarshal(body, &status); err != nil {
		return nil
	}
	var out ConflictError
	for _, cause := range status.Details.Causes {
		if cause.Reason != "FieldManagerConflict" {
			continue
		}
		// conflict with "kubectl-edit" using v1
		_, manager, _ := strings.Cut(cause.Message, `"`)
		manager, _, _ = strings.Cut(manager, `"`)
		out.Conflicts = append(out.Conflicts, Conflict{Manager: manager, Field: cause.Field})
	}
	if len(out.Conflicts) == 0 {
		return nil
	}
	return &out
}
