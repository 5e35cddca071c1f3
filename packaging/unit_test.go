package main

import (
	"os"
	"strings"
	"testing"
)

// oldest is the release of the oldest systemd that the unit is for: Ubuntu 22.04's.
const oldest = 249

// since has every directive that the unit uses, and the values that are a word of a list that grew,
// with the first release of systemd whose NEWS names it as there (Debian's systemd 252 brings the
// text as /usr/share/doc/systemd/NEWS.gz). 1 is what is older than that text. OOMPolicy= it names
// only later, but systemd's table of directives of about 248, the last in
// src/core/load-fragment-gperf.gperf.m4, has it. Who adds a line to the unit adds one here: an older
// systemd takes no notice of what it does not know, and the unit would be less there than here.
var since = map[string]int{
	"After": 1, "Description": 1, "Documentation": 183, "Wants": 1, "WantedBy": 1,
	"StartLimitIntervalSec": 230, // renamed and moved to [Unit]

	"ExecReload": 1, "ExecStart": 1, "NotifyAccess": 1, "NotifyAccess=main": 1,
	"KillMode": 1, "KillMode=mixed": 209,
	"Restart": 1, "Restart=always": 1, "RestartSec": 1,
	"TimeoutStopSec": 188, "Type": 1, "Type=notify": 1, "WatchdogSec": 207,

	"StateDirectory": 235, "StateDirectoryMode": 235,
	"RuntimeDirectory": 211, "RuntimeDirectoryMode": 211, "RuntimeDirectoryPreserve": 235,
	"UMask": 1,

	"LimitCORE": 1, "OOMScoreAdjust": 1,
	"OOMPolicy": 248, "OOMPolicy=continue": 248,
	"MemoryHigh": 249, "MemoryMax": 249, "Environment": 1,

	"CapabilityBoundingSet": 1, "NoNewPrivileges": 187,
	"SystemCallFilter": 187, "SystemCallErrorNumber": 209, "SystemCallArchitectures": 209,
	"RestrictAddressFamilies": 211, "RestrictNamespaces": 233,
	"RestrictRealtime": 231, "MemoryDenyWriteExecute": 231, "RestrictSUIDSGID": 242,
	"LockPersonality": 235, "KeyringMode": 235, "KeyringMode=private": 235,
	"PrivateMounts": 239, "ProtectControlGroups": 232, "ProtectKernelLogs": 244,
}

// groups are the groups of system calls that the unit may name: NEWS of 231 has all but the last.
var groups = map[string]int{
	"@clock": 231, "@cpu-emulation": 231, "@debug": 231, "@mount": 231, "@obsolete": 231, "@raw-io": 231, "@reboot": 233,
}

// worded are the directives whose value is a word out of a list that has grown.
var worded = []string{"NotifyAccess", "KillMode", "Restart", "Type", "OOMPolicy", "KeyringMode"}

// Type=notify-reload (253), RestartSteps= (254) and ImportCredential= (254) would be welcome, and
// would be ignored, or refused, by a systemd that the package can be installed beside.
func TestUnitUsesOnlyWhatOldSystemdsKnow(t *testing.T) {
	unit, err := os.ReadFile("../deploy/systemd/nodeagent.service")
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for line := range strings.Lines(string(unit)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "[") {
			continue
		}
		lines++
		for _, word := range vocabulary(line) {
			release, ok := since[word]
			if strings.HasPrefix(word, "@") {
				release, ok = groups[word]
			}
			switch {
			case !ok:
				t.Errorf("%q: no release is known that brought %s", line, word)
			case release > oldest:
				t.Errorf("%q: %s came with %d, and the unit is for %d and later", line, word, release, oldest)
			}
		}
	}
	if lines < 40 {
		t.Errorf("the unit has %d lines: is it read at all?", lines)
	}
}

// vocabulary is what of a line depends on systemd's release.
func vocabulary(line string) []string {
	name, value, _ := strings.Cut(line, "=")
	words := []string{name}
	for _, w := range worded {
		if name == w {
			words = append(words, name+"="+value)
		}
	}
	for field := range strings.FieldsSeq(strings.TrimPrefix(value, "~")) {
		if strings.HasPrefix(field, "@") {
			words = append(words, field)
		}
	}
	return words
}
