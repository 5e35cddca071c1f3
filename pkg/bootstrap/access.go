package bootstrap

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kube"
)

// access is the way to the API as its administrator, for all steps of a run. They share a
// client, and with it a connection: where the control plane is just coming up, a handshake
// costs both ends more than most of the answers.
type access struct {
	host *host.Host

	mu     sync.Mutex
	config []byte // that the client was made from
	client *kube.Client
}

// connect is the client for admin.conf as it is now: kubeadm embeds its credentials.
func (a *access) connect() (*kube.Client, error) {
	config, err := a.host.ReadFile(AdminConf)
	if err != nil {
		return nil, fmt.Errorf("connect to the API: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.client != nil && bytes.Equal(config, a.config) {
		return a.client, nil
	}
	client, err := kube.Connect(a.host, AdminConf)
	if err != nil {
		return nil, err
	}
	a.config, a.client = config, client
	return client, nil
}
