//go:build integration

package deb_test

import (
	"strings"
	"testing"
)

// webConfig lets the user "prometheus" in, whose password is "open sesame".
const webConfig = "basic_auth_users:\n  prometheus: $2a$04$dNM5hMkAD6ewDFY41QRuuOnITsiE7ndX0P/feQ1B6okw.VSkQI73y\n"

// getMetrics prints the first line of the answer to a request with one more header.
const getMetrics = `exec 3<>/dev/tcp/127.0.0.1/10980
printf 'GET /metrics HTTP/1.0\r\nX-More: %s\r\n\r\n' "$1" >&3
head -n 1 <&3
`

// A credential that systemd hands to the unit takes the place of a file: the daemon reads its own,
// a command beside it finds that of the running unit, and a reload takes up a new one.
func credential(t *testing.T, n node) {
	n.Write(t, configPath, []byte(config+"metrics: {webConfigFile: credential:web}\n"), 0o600)
	n.Write(t, "/etc/nodeagent/web.yaml", []byte(webConfig), 0o600)
	n.Write(t, "/etc/systemd/system/nodeagent.service.d/credentials.conf", []byte("[Service]\nLoadCredential=web:/etc/nodeagent/web.yaml\n"), 0o644)
	n.apt(t, "install /srv/new.deb")
	n.working(t)
	n.Write(t, "/srv/get", []byte(getMetrics), 0o644)
	if out := n.Script(t, "bash /srv/get nothing"); !strings.Contains(out, " 401 ") {
		t.Errorf("without a password the answer is %s", out)
	}
	if out := n.Script(t, `bash /srv/get "$(printf 'x\r\nAuthorization: Basic cHJvbWV0aGV1czpvcGVuIHNlc2FtZQ==')"`); !strings.Contains(out, " 200 ") {
		t.Errorf("with the password it is %s", out)
	}
	n.Script(t, "nodeagent config check")

	// Without the running unit there is no credential, and only what serves needs it.
	n.Script(t, "systemctl stop nodeagent")
	if out := n.Script(t, "nodeagent config check 2>&1 && exit 1; nodeagent config print"); !strings.Contains(out, "give nodeagent.service a LoadCredential= of this name") ||
		!strings.Contains(out, "webConfigFile: credential:web") {
		t.Errorf("the check says\n%s", out)
	}

	// A file that others can read is refused where it is named itself. The credential is not: it
	// is systemd that reads the file.
	n.Script(t, "chmod 644 /etc/nodeagent/web.yaml && systemctl start nodeagent && nodeagent config check")
	n.Script(t, "sed -i s,credential:web,/etc/nodeagent/web.yaml, "+configPath)
	if out := n.Script(t, "nodeagent config check 2>&1 && exit 1; systemctl reload nodeagent"); !strings.Contains(out, "/etc/nodeagent/web.yaml is not safe to go by: others can read or write it (mode 0644)") {
		t.Errorf("the check says\n%s", out)
	}
	n.Wait(t, patience, "journalctl -u nodeagent | grep -F 'configuration not reloaded'")
	n.expect(t, "ActiveState=active")
}
