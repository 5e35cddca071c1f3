#!/bin/bash
# What stands around the host of goesOffHost: an S3 server, and a Prometheus.
set -euo pipefail

begin() {
	mkdir -p /srv/s3/backups/node1
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=s3 \
		-addext subjectAltName=IP:127.0.0.1 -keyout /root/s3.key -out /etc/nodeagent/s3-ca.crt 2>/dev/null
	printf backup >/etc/nodeagent/s3-access-key
	openssl rand -hex 20 | tr -d '\n' >/etc/nodeagent/s3-secret-key
	chmod 600 /etc/nodeagent/s3-*-key
	printf 'ROOT_ACCESS_KEY=%s\nROOT_SECRET_KEY=%s\n' "$(cat /etc/nodeagent/s3-access-key)" "$(cat /etc/nodeagent/s3-secret-key)" >/root/s3.env
	chmod 600 /root/s3.env
	systemd-run --quiet --unit s3 --property=EnvironmentFile=/root/s3.env \
		/mnt/files/versitygw --port 127.0.0.1:7070 --cert /etc/nodeagent/s3-ca.crt --key /root/s3.key posix /srv/s3
	for _ in $(seq 60); do
		curl --silent --output /dev/null --cacert /etc/nodeagent/s3-ca.crt https://127.0.0.1:7070/ && break
		sleep 1
	done

	sed -i '/^backup:/,/^[a-z]/{/^backup:/d;/^ /d}' /etc/nodeagent/config.yaml
	cat >>/etc/nodeagent/config.yaml <<-END
		backup:
		  schedule: "* * * * *"
		  retention: {keepLast: 20}
		  recipients: [$(cat /root/recipient)]
		  stores:
		    - file: {dir: /var/lib/nodeagent/backups}
		    - s3:
		        endpoint: https://127.0.0.1:7070
		        bucket: backups
		        prefix: node1
		        pathStyle: true
		        caFile: /etc/nodeagent/s3-ca.crt
		        accessKeyFile: /etc/nodeagent/s3-access-key
		        secretKeyFile: /etc/nodeagent/s3-secret-key
		  drill: {identityFile: /etc/nodeagent/identity.txt, diskRate: 0}
	END
	nodeagent config check
	systemctl reload nodeagent
}

# The rules are those that are shipped, but that an alert does not wait before it fires.
scrape() {
	mkdir -p /srv/prometheus
	sed 's/^\( *for:\) .*/\1 1s/' /root/nodeagent.rules.yaml >/srv/prometheus/nodeagent.rules.yaml
	cat >/srv/prometheus/prometheus.yml <<-END
		global: {scrape_interval: 5s, evaluation_interval: 5s}
		rule_files: [nodeagent.rules.yaml]
		scrape_configs:
		  - job_name: nodeagent
		    static_configs: [{targets: ["127.0.0.1:10980"], labels: {node: node1}}]
	END
	systemd-run --quiet --unit prometheus-test /mnt/files/prometheus --config.file /srv/prometheus/prometheus.yml \
		--storage.tsdb.path /srv/prometheus/data --web.listen-address 127.0.0.1:9090
	for _ in $(seq 60); do
		curl --silent --fail --output /dev/null http://127.0.0.1:9090/-/ready && break
		sleep 1
	done
}

query() { curl --silent --fail --get --data-urlencode "query=$1" http://127.0.0.1:9090/api/v1/query | jq -c '.data.result[]'; }

firing() {
	curl --silent --fail http://127.0.0.1:9090/api/v1/alerts |
		jq -r '.data.alerts[] | select(.state == "firing") | .labels.alertname + " " + (.labels.store // "")'
}

"$@"
