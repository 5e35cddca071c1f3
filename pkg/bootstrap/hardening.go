package bootstrap

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// HardeningConfig is the section "kubeadm.hardening": what the CIS benchmark for Kubernetes asks
// for and kubeadm does not do by itself, one switch each. What is passed through to kubeadm wins.
type HardeningConfig struct {
	// FilePermissions makes the files of the kubelet, the control plane and the CNI readable by
	// root alone where kubeadm, packages and add-ons leave them to everybody: the step node/files.
	FilePermissions bool `yaml:"filePermissions"`
	// StrongCiphers leaves the kubelet and the API server only those cipher suites of TLS 1.2
	// that have forward secrecy and authenticated encryption.
	StrongCiphers bool `yaml:"strongCiphers"`
	// SeccompDefault has containers that name no seccomp profile run under the container
	// runtime's, on all nodes of the cluster.
	SeccompDefault bool `yaml:"seccompDefault"`
	// LimitPIDs gives each pod at most 4096 processes and threads, on all nodes of the cluster.
	LimitPIDs bool `yaml:"limitPIDs"`
	// EndIdleStreams has the kubelet close a kubectl exec, attach or port-forward in which nothing
	// moved for four hours. That is its default; kubeadm's file says 0s, which reads as never.
	EndIdleStreams bool `yaml:"endIdleStreams"`
	// NoProfiling switches the profiler of the API server, the controller manager and the
	// scheduler off.
	NoProfiling bool `yaml:"noProfiling"`
	// NoExtendedTokens has the tokens of pods end after the hour that they are for, and not
	// after a year. A client that reads its token only once is then refused.
	NoExtendedTokens bool `yaml:"noExtendedTokens"`
	// ProtectKernelDefaults has the kubelet refuse to start, on all nodes of the cluster, where a
	// sysctl of its own is otherwise, instead of setting it. kernel/sysctl sets them on this one.
	ProtectKernelDefaults bool `yaml:"protectKernelDefaults"`
	// ServerTLSBootstrap has the kubelets ask the cluster for the certificates that they serve
	// with. Nothing in a kubeadm cluster approves such requests: until somebody does, kubectl
	// logs and exec do not work.
	ServerTLSBootstrap bool `yaml:"serverTLSBootstrap"`
	// AuditPolicyFile is an audit policy on this host, by which the API server writes
	// /var/log/kubernetes/audit/audit.log, ten files of 100 MB for 30 days; no audit log when empty.
	AuditPolicyFile string `yaml:"auditPolicyFile"`
}

// DefaultHardening is what holds where the configuration says nothing: all that a cluster does
// not notice.
func DefaultHardening() HardeningConfig {
	return HardeningConfig{
		FilePermissions: true, StrongCiphers: true, SeccompDefault: true, LimitPIDs: true,
		EndIdleStreams: true, NoProfiling: true, NoExtendedTokens: true,
	}
}

// Validate says what is wrong with the section.
func (c HardeningConfig) Validate() error {
	if c.AuditPolicyFile == "" {
		return nil
	}
	if !filepath.IsAbs(c.AuditPolicyFile) {
		return fmt.Errorf("auditPolicyFile: %q is not an absolute path", c.AuditPolicyFile)
	}
	if filepath.Clean(c.AuditPolicyFile) == "/" {
		return errors.New("auditPolicyFile: / is no file")
	}
	return nil
}

// strongCiphers are those that CIS 4.2.12 takes. Those of TLS 1.3 are all strong, and Go lets
// none of them be chosen.
var strongCiphers = []string{
	"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
	"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
	"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
}

const (
	maxPodPIDs      = 4096     // far more than a pod needs, far less than a kernel has
	idleStreamLimit = "4h0m0s" // the kubelet's own default
	auditDir        = "/var/log/kubernetes/audit"
)

// kubelet sets what is asked for in the kubelet's configuration.
func (c HardeningConfig) kubelet(k *kubeletConfiguration) {
	if c.StrongCiphers {
		k.TLSCipherSuites = strongCiphers
	}
	if c.LimitPIDs {
		k.PodPidsLimit = maxPodPIDs
	}
	if c.EndIdleStreams {
		k.StreamingConnectionIdleTimeout = idleStreamLimit
	}
	k.SeccompDefault = c.SeccompDefault
	k.ProtectKernelDefaults = c.ProtectKernelDefaults
	k.ServerTLSBootstrap = c.ServerTLSBootstrap
}

// cluster sets what is asked for in the arguments of the control plane.
func (c HardeningConfig) cluster(k *clusterConfiguration) {
	api := &k.APIServer
	if c.NoProfiling {
		off := extraArg{"profiling", "false"}
		api.ExtraArgs = append(api.ExtraArgs, off)
		k.ControllerManager.ExtraArgs = append(k.ControllerManager.ExtraArgs, off)
		k.Scheduler.ExtraArgs = append(k.Scheduler.ExtraArgs, off)
	}
	if c.StrongCiphers {
		api.ExtraArgs = append(api.ExtraArgs, extraArg{"tls-cipher-suites", strings.Join(strongCiphers, ",")})
	}
	if c.NoExtendedTokens {
		api.ExtraArgs = append(api.ExtraArgs, extraArg{"service-account-extend-token-expiration", "false"})
	}
	if c.AuditPolicyFile == "" {
		return
	}
	api.ExtraArgs = append(api.ExtraArgs,
		extraArg{"audit-policy-file", c.AuditPolicyFile}, extraArg{"audit-log-path", auditDir + "/audit.log"},
		extraArg{"audit-log-maxage", "30"}, extraArg{"audit-log-maxbackup", "10"}, extraArg{"audit-log-maxsize", "100"},
	)
	api.ExtraVolumes = append(api.ExtraVolumes,
		extraVolume{Name: "audit-policy", HostPath: c.AuditPolicyFile, MountPath: c.AuditPolicyFile, ReadOnly: true, PathType: "File"},
		extraVolume{Name: "audit-log", HostPath: auditDir, MountPath: auditDir, PathType: "DirectoryOrCreate"},
	)
}
