//go:build integration

package etcd_test

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	n := start(t)
	for _, tt := range []struct {
		name string
		test func(*testing.T, node)
	}{
		{"flags in etc.service, without peer certificates", byFlags},
		{"environment file, kubespray's names, etcd 3.4", byEnvironment},
		{"configuration file, a link called etc", byConfigFile},
		{"replaced by an upgrade while it runs", replaced},
		{"a root and a mount namespace of its own", ownRoot},
		{"a network of its own", ownNetwork},
		{"containers", containers},
		{"the certificate names another address", otherAddress},
		{"the certificate names nothing of this host", noAddress},
		{"no client certificate", noClient},
		{"the peer's pair is for clients", peerPair},
		{"certificates of its own making", autoTLS},
		{"sockets, IPv6 and a port for HTTP alone", transports},
		{"two, one a learner", learner},
		{"none", func(t *testing.T, n node) { n.refuses(t, "", "find etcd: no etcd on this host") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n.clean(t)
			tt.test(t, n)
		})
	}
}

// mutual are the flags of a member that asks clients for certificates.
const mutual = " --name=m1 --data-dir=/srv/etcd/m1 --listen-client-urls=https://127.0.0.1:2379 --advertise-client-urls=https://127.0.0.1:2379" +
	" --cert-file=/etc/etcd/pki/server.pem --key-file=/etc/etcd/pki/server-key.pem --client-cert-auth --trusted-ca-file=/etc/etcd/pki/ca.pem\n"

// A handbook's: ca.pem, server.pem, client.pem. The server's pair is not for clients.
func byFlags(t *testing.T, n node) {
	p := n.pki(t, "/etc/etcd/pki", "ca.pem")
	p.put("server.pem", "server-key.pem", server, "127.0.0.1")
	p.put("client.pem", "client-key.pem", client)
	n.unit(t, "etc.service", "ExecStart=/srv/etcd36/etcd"+mutual)
	n.saves(t, "", "3.6")
	n.Script(t, "rm /etc/etcd/pki/client-key.pem")
	n.Script(t, "rm -r "+backups)
	n.refuses(t, "", "no client certificate that etcd takes: /etc/etcd/pki/server.pem is not for clients", "backup.certFile")
	p.put("mine.pem", "mine-key.pem", client)
	n.saves(t, "certFile: /etc/etcd/pki/mine.pem, keyFile: /etc/etcd/pki/mine-key.pem,", "3.6")
}

func byEnvironment(t *testing.T, n node) {
	p := n.pki(t, "/etc/ssl/etcd/ssl", "ca.pem")
	p.put("member-node1.pem", "member-node1-key.pem", server, "127.0.0.1", "10.77.0.1")
	p.put("admin-node1.pem", "admin-node1-key.pem", client)
	n.Write(t, "/etc/etcd/etcd.env", []byte(`ETCD_NAME=etcd1
ETCD_DATA_DIR=/srv/etcd/m1
ETCD_LISTEN_CLIENT_URLS=https://10.77.0.1:2379,https://127.0.0.1:2379
ETCD_ADVERTISE_CLIENT_URLS=https://10.77.0.1:2379
ETCD_CERT_FILE=/etc/ssl/etcd/ssl/member-node1.pem
ETCD_KEY_FILE=/etc/ssl/etcd/ssl/member-node1-key.pem
ETCD_TRUSTED_CA_FILE=/etc/ssl/etcd/ssl/ca.pem
ETCD_CLIENT_CERT_AUTH=true
`), 0o600)
	n.unit(t, "etcd-server.service", "User=etcd\nEnvironmentFile=/etc/etcd/etcd.env\nExecStart=/srv/etcd34/etcd\n")
	n.saves(t, "", "3.4")
}

func byConfigFile(t *testing.T, n node) {
	p := n.pki(t, "/etc/etcd/pki", "ca.pem")
	p.put("server.pem", "server-key.pem", both, "127.0.0.1")
	n.Write(t, "/etc/etcd/etcd.yaml", []byte(`name: m1
data-dir: /srv/etcd/m1
listen-client-urls: https://127.0.0.1:4001
advertise-client-urls: https://127.0.0.1:4001
client-transport-security: {cert-file: pki/server.pem, key-file: pki/server-key.pem, client-cert-auth: true, trusted-ca-file: pki/ca.pem}
`), 0o644)
	n.Script(t, "mkdir -p /opt/bin; ln -sf /srv/etcd36/etcd /opt/bin/etc")
	// What the file replaces says something else.
	n.unit(t, "etc.service", "WorkingDirectory=/etc/etcd\nEnvironment=ETCD_CONFIG_FILE=etcd.yaml ETCD_LISTEN_CLIENT_URLS=http://127.0.0.1:1\nExecStart=/opt/bin/etc --name=other\n")
	n.saves(t, "", "3.6")
}

func replaced(t *testing.T, n node) {
	n.Script(t, "mkdir -p /opt/bin; cp /srv/etcd34/etcd /opt/bin/etcd; ln -sf etcd /opt/bin/etc")
	n.unit(t, "etcd.service", "ExecStart=/bin/sh -c '/opt/bin/etc --data-dir=/srv/etcd/m1; true'\nNotifyAccess=all\n")
	n.Script(t, "cp /srv/etcd36/etcd /opt/bin/new; mv /opt/bin/new /opt/bin/etcd")
	n.saves(t, "", "3.4")
}

// As in a container: its program and its certificates are nowhere else.
func ownRoot(t *testing.T, n node) {
	p := n.pki(t, "/srv/etcd/root/pki", "ca.crt")
	p.put("server.crt", "server.key", both, "127.0.0.1")
	n.Script(t, "mkdir -p /srv/etcd/root/data /srv/etcd/root/run; cp /srv/etcd36/etcd /srv/etcd/root/etcd")
	n.unit(t, "etcd.service", "RootDirectory=/srv/etcd/root\nMountAPIVFS=yes\nBindReadOnlyPaths=/srv/etcd/root/pki:/certs\nInaccessiblePaths=/pki\n"+
		"ExecStart=/etcd --name=m1 --initial-cluster=m1=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380 --listen-peer-urls=http://127.0.0.1:2380 --data-dir=/data --listen-client-urls=https://127.0.0.1:2379 --advertise-client-urls=https://127.0.0.1:2379 --cert-file=/certs/server.crt --key-file=/certs/server.key --trusted-ca-file=/certs/ca.crt\n")
	n.saves(t, "", "3.6")
}

// A real containerd's containers, one of them where kubelet has its pods.
func containers(t *testing.T, n node) {
	for _, name := range []string{"runc", "containerd"} {
		debs, err := filepath.Glob(filepath.Join(n.repository, "debian/amd64", name+"_*.deb"))
		if err != nil || len(debs) != 1 {
			t.Fatalf("find the package %s: %v, %v", name, debs, err)
		}
		n.CopyIn(t, debs[0], "/srv/"+name+".deb")
	}
	n.Script(t, "dpkg -i /srv/runc.deb /srv/containerd.deb; systemctl start containerd; mkdir -p /srv/etcd/root/data; cp /srv/etcd36/etcd /srv/etcd/root/etcd")
	p := n.pki(t, "/srv/etcd/pki", "ca.crt")
	p.put("server.crt", "server.key", both, "127.0.0.1")
	run := func(id, group, port, flags string) {
		n.Script(t, "ctr run -d --rootfs --net-host --mount type=bind,src=/srv/etcd/pki,dst=/certs,options=rbind:ro --cgroup "+group+" --env ETCD_SECRET="+secret+
			" /srv/etcd/root "+id+" /etcd --name=m1 --data-dir=/data/"+port+" --initial-cluster=m1=http://127.0.0.1:1"+port+" --initial-advertise-peer-urls=http://127.0.0.1:1"+port+
			" --listen-peer-urls=http://127.0.0.1:1"+port+" --advertise-client-urls=http://127.0.0.1:"+port+" "+flags)
		t.Cleanup(func() { n.Script(t, "ctr task kill -s KILL "+id+"; ctr task delete "+id+"; ctr container delete "+id) })
	}
	id := strings.Repeat("0123456789abcdef", 4)
	run(id, "/docker/"+id, "2379", "--listen-client-urls=https://127.0.0.1:2379 --cert-file=/certs/server.crt --key-file=/certs/server.key --trusted-ca-file=/certs/ca.crt")
	n.Wait(t, patience, "curl -s http://127.0.0.1:12379/version")
	n.saves(t, "", "3.6")
	n.Script(t, "rm -r "+backups)
	events := strings.Repeat("fedcba9876543210", 4)
	run(events, "/kubepods/burstable/pod01234567-89ab-cdef-0123-456789abcdef/"+events, "4002", "--listen-client-urls=http://127.0.0.1:4002")
	n.Wait(t, patience, "curl -s http://127.0.0.1:14002/version")
	n.refuses(t, "", "container 0123456789ab, at https://127.0.0.1:2379, data in /data/2379", "pod 01234567-89ab-cdef-0123-456789abcdef, at http://127.0.0.1:4002", "backup.endpoints")
	n.saves(t, "endpoints: ['https://127.0.0.1:2379'],", "3.6")
}

// Nobody can reach it there but by its socket.
func ownNetwork(t *testing.T, n node) {
	flags := "ExecStart=/srv/etcd36/etcd --data-dir=/srv/etcd/m1 --advertise-client-urls=http://127.0.0.1:2379 --listen-client-urls="
	n.unit(t, "other.service", "PrivateNetwork=yes\n"+flags+"http://127.0.0.1:2379\n")
	n.refuses(t, "", "no etcd on this host", "unit other.service in a network of its own, at http://127.0.0.1:2379", "backup.endpoints")
	n.Script(t, "systemctl stop other.service")
	n.unit(t, "etcd.service", "PrivateNetwork=yes\nWorkingDirectory=/srv/etcd\n"+flags+"http://127.0.0.1:2379,unix://m1.sock:0\n")
	n.saves(t, "", "3.6")
}

// The certificate has no loopback address, as many made by hand; it listens everywhere.
func otherAddress(t *testing.T, n node) {
	p := n.pki(t, "/etc/etcd/pki", "ca.pem")
	p.put("server.pem", "server-key.pem", both, "10.77.0.1")
	p.put("client.pem", "client-key.pem", client)
	n.unit(t, "etcd.service", "ExecStart=/srv/etcd36/etcd"+strings.Replace(mutual, "listen-client-urls=https://127.0.0.1", "listen-client-urls=https://0.0.0.0", 1))
	n.saves(t, "", "3.6")
	n.Script(t, "rm -r "+backups)
	n.refuses(t, "endpoints: ['https://127.0.0.1:2379'],", "dial etcd at https://127.0.0.1:2379: the server's certificate is not valid for 127.0.0.1, it names 10.77.0.1")
}

func noAddress(t *testing.T, n node) {
	p := n.pki(t, "/etc/etcd/pki", "ca.pem")
	p.put("server.pem", "server-key.pem", both, "10.77.0.1", "10.77.0.99", "vip.invalid")
	p.put("client.pem", "client-key.pem", client)
	n.unit(t, "etcd.service", "ExecStart=/srv/etcd36/etcd"+mutual)
	n.refuses(t, "", "the server's certificate is not valid for 127.0.0.1, it names vip.invalid, 10.77.0.1, 10.77.0.99: issue it with this address among its names")
}

func noClient(t *testing.T, n node) {
	p := n.pki(t, "/etc/etcd/pki", "ca.pem")
	p.put("server.pem", "server-key.pem", server, "127.0.0.1")
	// One of another authority, where kubeadm has its own.
	q := n.pki(t, "/etc/kubernetes/pki", "x.crt")
	q.put("apiserver-etcd-client.crt", "apiserver-etcd-client.key", client)
	n.unit(t, "etcd.service", "ExecStart=/srv/etcd36/etcd"+mutual)
	n.refuses(t, "", "no client certificate that etcd takes: /etc/kubernetes/pki/apiserver-etcd-client.crt: etcd refuses the client: remote error: tls: ",
		"/etc/etcd/pki/server.pem is not for clients", "backup.certFile")
	p.dir = "/etc/kubernetes/pki"
	p.put("apiserver-etcd-client.crt", "apiserver-etcd-client.key", client)
	n.saves(t, "", "3.6")
}

func peerPair(t *testing.T, n node) {
	p := n.pki(t, "/etc/etcd/pki", "ca.pem")
	p.put("server.pem", "server-key.pem", server, "127.0.0.1")
	p.put("peer.pem", "peer-key.pem", both, "127.0.0.1")
	n.unit(t, "etcd.service", "ExecStart=/srv/etcd34/etcd --peer-cert-file=/etc/etcd/pki/peer.pem --peer-key-file=/etc/etcd/pki/peer-key.pem"+mutual)
	n.saves(t, "", "3.4")
}

func autoTLS(t *testing.T, n node) {
	n.unit(t, "etcd.service", "ExecStart=/srv/etcd36/etcd --auto-tls --data-dir=/srv/etcd/m1 --listen-client-urls=https://127.0.0.1:2379 --advertise-client-urls=https://127.0.0.1:2379\n")
	n.saves(t, "", "3.6")
}

func transports(t *testing.T, n node) {
	for _, flags := range []string{
		"--listen-client-urls=unix:///run/m1.sock --advertise-client-urls=http://10.77.0.99:2379",
		"--listen-client-urls=http://[::1]:2379 --advertise-client-urls=http://[::1]:2379",
		"--listen-client-urls=http://[::]:2379 --advertise-client-urls=http://10.77.0.99:2379",
		"--listen-client-urls=http://10.77.0.1:2379 --listen-client-http-urls=http://127.0.0.1:2381 --advertise-client-urls=http://127.0.0.1:2381,http://10.77.0.1:2379",
	} {
		t.Run(flags, func(t *testing.T) {
			n.clean(t)
			n.unit(t, "etcd.service", "ExecStart=/srv/etcd36/etcd --data-dir=/srv/etcd/m1 "+flags+"\n")
			n.saves(t, "", "3.6")
		})
	}
}

// A voting member and a learner on one host: neither is taken for the other, and the learner is
// never saved.
func learner(t *testing.T, n node) {
	member := func(name, port, peer, more string) string {
		return "ExecStart=/srv/etcd36/etcd --name=" + name + " --data-dir=/srv/etcd/" + name +
			" --listen-client-urls=http://127.0.0.1:" + port + " --advertise-client-urls=http://127.0.0.1:" + port +
			" --listen-peer-urls=http://127.0.0.1:" + peer + " --initial-advertise-peer-urls=http://127.0.0.1:" + peer + " " + more + "\n"
	}
	n.unit(t, "m1.service", member("m1", "2379", "2380", "--initial-cluster=m1=http://127.0.0.1:2380"))
	n.Script(t, "/srv/etcd36/etcdctl member add m2 --learner --peer-urls=http://127.0.0.1:3380")
	n.unit(t, "m2.service", member("m2", "3379", "3380", "--initial-cluster-state=existing --initial-cluster=m1=http://127.0.0.1:2380,m2=http://127.0.0.1:3380"))
	n.refuses(t, "", "which of these is meant cannot be told", "unit m1.service, at http://127.0.0.1:2379, data in /srv/etcd/m1", "unit m2.service", "backup.endpoints")
	n.refuses(t, "endpoints: ['http://127.0.0.1:3379'],", "is a learner")
	n.refuses(t, "endpoints: ['http://10.77.0.99:2379'],", "none of http://10.77.0.99:2379 is on this host")
	n.saves(t, "endpoints: ['http://10.77.0.99:2379', 'http://127.0.0.1:2379'],", "3.6")
}
