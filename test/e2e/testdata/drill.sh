#!/bin/bash
# What a drill of the daemon's writes to the disk.
set -euo pipefail
backups=/var/lib/nodeagent/backups

# noise has the database grow by fifteen megabytes that do not compress, and a backup taken of them.
noise() {
	for i in $(seq 15); do
		printf '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "noise-%d"}, "binaryData": {"noise": "%s"}}\n' \
			"$i" "$(head -c 1000000 /dev/urandom | base64 -w 0)"
	done >/root/noise.json
	kubectl create --validate=false -f /root/noise.json >/dev/null
	nodeagent snapshot save
	jq -e '.snapshot.size > 15000000' <"$(ls $backups/*.db.zst.json | tail -n 1)" >/dev/null
}

# most RATE starts the daemon where no backup is proven, and prints the most that its drill writes within ten
# seconds, in bytes, where RATE megabytes a second are allowed.
most() {
	systemctl stop nodeagent
	rm -f $backups/*.proof-*.json
	sed -i "/^backup:/,/^[a-z]/{/^backup:/d;/^ /d}" /etc/nodeagent/config.yaml
	printf 'backup:\n  schedule: "0 0 1 1 *"\n  retention: {keepLast: 20}\n  drill: {diskRate: %d}\n' "$1" >>/etc/nodeagent/config.yaml
	systemctl start nodeagent
	local group most=0 from=0 i=0 at=() wrote=()
	until group=$(systemctl show -P ControlGroup nodeagent-drill) && [ -n "$group" ] && [ -e "/sys/fs/cgroup$group/io.stat" ]; do
		sleep 0.1
	done
	while wrote[i]=$(awk '{ for (f = 2; f <= NF; f++) if (sub(/^wbytes=/, "", $f)) sum += $f } END { printf "%d", sum }' "/sys/fs/cgroup$group/io.stat" 2>/dev/null); do
		at[i]=$(date +%s%N)
		while ((at[i] - at[from] > 10000000000)); do from=$((from + 1)); done
		((wrote[i] - wrote[from] <= most)) || most=$((wrote[i] - wrote[from]))
		i=$((i + 1))
		sleep 0.1
	done
	until ls $backups/*.proof-*.json >/dev/null 2>&1; do sleep 1; done
	echo "$most"
}

"$@"
