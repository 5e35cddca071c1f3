package bootstrap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

const (
	// NodeKubeconfigStep is the name of the step that gives users the administrator's kubeconfig.
	NodeKubeconfigStep = "node/kubeconfig"

	kubeDir, kubeconfigFile = ".kube", "config" // in a home directory
	maxKubeconfig           = 1 << 20
	// kubeconfigUsers names the users whose kubeconfig the agent has written, one a line: one who
	// is taken off the configuration loses it.
	kubeconfigUsers = "/var/lib/nodeagent/kubeconfig-users"
)

// AdminKubeconfigs makes the step "node/kubeconfig": the named users of /etc/passwd have a copy
// of admin.conf as their ~/.kube/config, which follows when that is renewed. A file that is not
// such a copy is theirs and stays; so is what else is in the way in their home directory: a
// finding that says what to do. A user who is no longer named loses the copy that the agent made.
func AdminKubeconfigs(h *host.Host, users []string) step.Step {
	k := adminKubeconfigs{h, users}
	return step.Step{Name: NodeKubeconfigStep, Check: k.check, Apply: k.apply}
}

type adminKubeconfigs struct {
	host  *host.Host
	users []string
}

// copyOf is what is to become of one user's kubeconfig.
type copyOf struct {
	user   host.User
	remove bool         // it is the agent's, and to go
	forget bool         // the agent's note of it is all there is to remove
	change *step.Change // nil: it is as it should be
}

func (k adminKubeconfigs) check(context.Context) ([]step.Change, error) {
	copies, _, err := k.look()
	if err != nil {
		return nil, err
	}
	var changes []step.Change
	for _, c := range copies {
		if c.change != nil {
			changes = append(changes, *c.change)
		}
	}
	return changes, nil
}

func (k adminKubeconfigs) apply(context.Context) error {
	copies, admin, err := k.look()
	if err != nil {
		return err
	}
	for _, c := range copies {
		if c.change == nil || c.change.Manual {
			continue
		}
		if c.remove {
			if err := k.host.RemoveInHome(c.user, kubeDir, kubeconfigFile); err != nil {
				return err
			}
		}
		// The note comes before the file and goes after it: else a kill would leave a copy that
		// is never taken away.
		if err := k.remember(c.user.Name, !c.remove && !c.forget); err != nil {
			return err
		}
		if c.remove || c.forget {
			continue
		}
		if err := k.host.WriteInHome(c.user, kubeDir, kubeconfigFile, admin, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// look compares every user's file with admin.conf.
func (k adminKubeconfigs) look() (copies []copyOf, admin []byte, err error) {
	known, err := k.known()
	if err != nil || len(k.users)+len(known) == 0 {
		return nil, nil, err
	}
	if k.host.Offline {
		return nil, nil, step.Blocked{On: step.Boot}
	}
	admin, err = k.host.ReadFile(AdminConf)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, step.Blocked{On: "kubeadm/kubeconfig"}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	if _, err := usableKubeconfig(admin); err != nil { // one that is being written is not handed on
		return nil, nil, fmt.Errorf("check kubeconfig %s: %w", AdminConf, err)
	}
	for _, name := range k.users {
		c, err := k.given(name, admin)
		if err != nil {
			return nil, nil, err
		}
		copies = append(copies, c)
	}
	for _, name := range known {
		if slices.Contains(k.users, name) {
			continue
		}
		c, err := k.taken(name, admin)
		if err != nil {
			return nil, nil, err
		}
		copies = append(copies, c)
	}
	return copies, admin, nil
}

// given is a user who is to have a copy.
func (k adminKubeconfigs) given(name string, admin []byte) (copyOf, error) {
	const what = "a copy of " + AdminConf
	u, err := k.host.LookupUser(name)
	if errors.Is(err, fs.ErrNotExist) {
		return copyOf{change: &step.Change{
			Subject: "kubeconfig of " + name, Have: "no such user in /etc/passwd", Manual: true,
			Want: what + ": make the user, or take the name off node.adminKubeconfigFor",
		}}, nil
	}
	if err != nil {
		return copyOf{}, err
	}
	path := filepath.Join(u.Home, kubeDir, kubeconfigFile)
	c := copyOf{user: u}
	file, err := k.host.ReadInHome(u, kubeDir, kubeconfigFile, maxKubeconfig)
	switch {
	case errors.Is(err, host.ErrNotTheirs): // first: a home that is not there is this too
		c.change = &step.Change{Subject: path, Have: err.Error(), Want: what + ", in a directory of " + name + "'s own", Manual: true}
	case errors.Is(err, fs.ErrNotExist):
		c.change = &step.Change{Subject: path, Have: "absent", Want: what}
	case err != nil:
		return copyOf{}, fmt.Errorf("read kubeconfig: %w", err)
	case bytes.Equal(file.Data, admin):
		have, want := fmt.Sprintf("mode %04o, owner %d", file.Mode, file.UID), fmt.Sprintf("mode 0600, owner %d", u.UID)
		if have != want {
			c.change = &step.Change{Subject: path, Have: have, Want: want}
		}
	case isCopy(file.Data, admin):
		c.change = &step.Change{Subject: path, Have: "a copy of an earlier " + AdminConf, Want: what}
	case !holdsAll(file.Data, admin):
		c.change = &step.Change{
			Subject: path, Have: "a file that is not the agent's", Manual: true,
			Want: what + fmt.Sprintf(": `mv %s %s.before` and `nodeagent apply`, or leave it and set KUBECONFIG to another copy", path, path),
		}
	}
	return c, nil
}

// taken is a user who had a copy and is to have none. What is not certainly that copy stays.
func (k adminKubeconfigs) taken(name string, admin []byte) (copyOf, error) {
	forget := copyOf{user: host.User{Name: name}, forget: true, change: &step.Change{
		Subject: kubeconfigUsers, Have: "names " + name, Want: "does not: nothing of the agent's is left there",
	}}
	u, err := k.host.LookupUser(name)
	if errors.Is(err, fs.ErrNotExist) {
		return forget, nil
	}
	if err != nil {
		return copyOf{}, err
	}
	file, err := k.host.ReadInHome(u, kubeDir, kubeconfigFile, maxKubeconfig)
	switch {
	case errors.Is(err, host.ErrNotTheirs), errors.Is(err, fs.ErrNotExist):
		return forget, nil
	case err != nil:
		return copyOf{}, fmt.Errorf("read kubeconfig: %w", err)
	case isCopy(file.Data, admin):
		path := filepath.Join(u.Home, kubeDir, kubeconfigFile)
		return copyOf{user: u, remove: true, change: &step.Change{Subject: path, Have: "a copy of " + AdminConf, Want: "absent"}}, nil
	}
	return forget, nil
}

// known are the users whose kubeconfig the agent has written.
func (k adminKubeconfigs) known() ([]string, error) {
	data, err := k.host.ReadFile(kubeconfigUsers)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read whose kubeconfigs were written: %w", err)
	}
	return strings.Fields(string(data)), nil
}

func (k adminKubeconfigs) remember(name string, there bool) error {
	known, err := k.known()
	if err != nil || slices.Contains(known, name) == there {
		return err
	}
	if known = append(known, name); !there {
		known = slices.DeleteFunc(known, func(n string) bool { return n == name })
	}
	if len(known) == 0 {
		return k.host.Remove(kubeconfigUsers)
	}
	if err := k.host.MkdirAll(filepath.Dir(kubeconfigUsers), 0o700); err != nil {
		return err
	}
	return k.host.WriteFile(kubeconfigUsers, []byte(strings.Join(known, "\n")+"\n"), 0o600)
}

// isCopy says whether a kubeconfig is admin.conf, or that before it was renewed: the same in all
// but the certificate and its key. With a context or a namespace of the user's it is none.
func isCopy(data, admin []byte) bool {
	have, ok := withoutCredentials(data)
	want, is := withoutCredentials(admin)
	return ok && is && reflect.DeepEqual(have, want)
}

// withoutCredentials decodes a kubeconfig less its users' certificates and keys.
func withoutCredentials(data []byte) (map[string]any, bool) {
	var tree map[string]any
	if yaml.Unmarshal(data, &tree) != nil || tree == nil { // the error would quote the key
		return nil, false
	}
	users, _ := tree["users"].([]any)
	for _, u := range users {
		entry, _ := u.(map[string]any)
		if user, ok := entry["user"].(map[string]any); ok {
			delete(user, "client-certificate-data")
			delete(user, "client-key-data")
		}
	}
	return tree, len(users) > 0
}

// holdsAll says whether a kubeconfig, whatever else it has, holds every cluster and every user of
// admin.conf as they are there: somebody has added to the copy, and it is good as it is.
func holdsAll(data, admin []byte) bool {
	var have, want struct {
		Clusters []map[string]any `yaml:"clusters"`
		Users    []map[string]any `yaml:"users"`
	}
	if yaml.Unmarshal(data, &have) != nil || yaml.Unmarshal(admin, &want) != nil {
		return false
	}
	all := func(have, want []map[string]any) bool {
		return !slices.ContainsFunc(want, func(w map[string]any) bool {
			return !slices.ContainsFunc(have, func(h map[string]any) bool { return reflect.DeepEqual(h, w) })
		})
	}
	return all(have.Clusters, want.Clusters) && all(have.Users, want.Users)
}
