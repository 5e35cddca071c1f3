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

# In the middle of a phase a key may be there in part or empty, and an empty line is in every file.
sed -i -E '/^.{16,}$/!d' "$secrets"
# A search that does not find the token where it is would show nothing.
grep -qFf "$secrets" /var/lib/nodeagent/kubeadm.yaml

found=0
text=$(mktemp) && trap 'rm -f "$secrets" "$text"' EXIT
told() { # where; the text comes in, and none is a search that did not take place
	cat >"$text"
	if [ ! -s "$text" ]; then
		echo "nothing came from $1"
		found=1
	elif grep -aqFf "$secrets" "$text"; then
		echo "told in $1"
		found=1
	fi
}
in_files() { # their names come in, each ended by a zero; the list itself has to be found among them
	local names
	# grep fails for processes that end meanwhile: that it searches is shown by the list.
	names=$({ cat; printf '%s\0' "$secrets"; } | xargs -0 grep -laFf "$secrets" 2>/dev/null || true)
	if ! grep -qxF "$secrets" <<<"$names"; then
		echo "the files were not searched"
		found=1
	fi
	names=$(grep -vxF "$secrets" <<<"$names" || true)
	[ -z "$names" ] || { echo "told in $names"; found=1; }
}
case $1 in
running)
	in_files < <(printf '%s\0' /proc/[0-9]*/cmdline /proc/[0-9]*/environ)
	told "the properties of units" < <(systemctl show 'nodeagent*')
	;;
told)
	# All of it: what the agent's children print is under their own names. (-u and -t together find nothing.)
	told "the journal" < <(journalctl --boot --no-pager -o cat)
	# kubeadm's file holds the token, and a snapshot everything.
	in_files < <(find /var/log/nodeagent /run/nodeagent /var/lib/nodeagent -type f \
		-not -path '*/backups/*.db.zst' -not -path '/var/lib/nodeagent/drill/*' -not -path /var/lib/nodeagent/kubeadm.yaml -print0)
	for command in 'status -o json' 'plan' 'config print' 'certs list -o json' 'snapshot list -o json'; do
		# shellcheck disable=SC2086 # a command and its flags
		printed=$(nodeagent $command 2>&1) && code=0 || code=$?
		told "nodeagent $command" <<<"$printed"
		[ $code = 0 ] || [ $code = 2 ] || { echo "nodeagent $command: exit code $code"; found=1; } # 2: there is something to do
	done
	for page in / /metrics; do
		told "http://127.0.0.1:10980$page" < <(curl -s "http://127.0.0.1:10980$page")
	done
	;;
esac
exit $found
