#!/bin/bash
# Where are this node's secrets told? "running": arguments and environments of all processes and
# properties of the agent's units, now. "told": whatever the agent has written or prints.
set -euo pipefail
shopt -s nullglob
secrets=$(mktemp) && trap 'rm -f "$secrets"' EXIT
chmod 600 "$secrets"

# Of a key a line of its private part: the beginning of an RSA key and the end of an EC key are public.
private() { awk '{ line[NR] = $0 } END { print line[int((NR + 1) * 0.4)] }'; }
for key in /etc/kubernetes/pki/*.key /etc/kubernetes/pki/etcd/*.key /var/lib/nodeagent/kubeadm/pki/*.key; do
	private <"$key" >>"$secrets"
done
for config in /etc/kubernetes/*.conf; do
	data=$(sed -n 's/^ *client-key-data: //p' "$config")
	[ -z "$data" ] || printf '%s\n' "${data:$((${#data} / 2)):60}" >>"$secrets"
done
# The token's second half: the first names it.
sed -n 's/.*token: "\{0,1\}[a-z0-9]\{6\}\.\([a-z0-9]\{16\}\).*/\1/p' /var/lib/nodeagent/kubeadm.yaml >>"$secrets"

# A list without one, or a search that does not find them where they are, would show nothing.
[ -s "$secrets" ]
if grep -vE '^.{16,}$' "$secrets" >/dev/null; then
	echo "a secret is too short to be sought"
	exit 2
fi
grep -qFf "$secrets" /var/lib/nodeagent/kubeadm.yaml

found=0
told() { # where; the text comes in
	if grep -aFf "$secrets" >/dev/null; then
		echo "told in $1"
		found=1
	fi
}
case $1 in
running)
	for process in /proc/[0-9]*; do
		for part in cmdline environ; do
			# Not this script's own processes, whose arguments are the places.
			told "$process/$part ($(cat "$process/comm" 2>/dev/null || true))" < <(cat "$process/$part" 2>/dev/null || true)
		done
	done
	for unit in $(systemctl list-units --all --plain --no-legend 'nodeagent*' | awk '{ print $1 }'); do
		told "properties of $unit" < <(systemctl show "$unit")
	done
	;;
told)
	told "the journal" < <(journalctl --boot --no-pager -o cat -u 'nodeagent*' -t nodeagent)
	for file in /var/log/nodeagent/* /run/nodeagent/*; do
		[ ! -f "$file" ] || told "$file" <"$file"
	done
	# kubeadm's file holds the token, and a snapshot everything.
	while IFS= read -r -d '' file; do
		told "$file" <"$file"
	done < <(find /var/lib/nodeagent -path '*/backups/*.db' -prune -o -path /var/lib/nodeagent/kubeadm.yaml -prune -o -type f -print0)
	for command in 'status' 'status -o json' 'plan' 'plan -o json' 'config print' 'certs list -o json' 'snapshot list -o json'; do
		told "nodeagent $command" < <(nodeagent $command 2>&1 || true)
	done
	for page in / /metrics /healthz /readyz; do
		told "http://127.0.0.1:10980$page" < <(curl -s "http://127.0.0.1:10980$page")
	done
	;;
esac
exit $found
