package etcdbackup_test

import (
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
)

func s3Config() etcdbackup.S3Config {
	return etcdbackup.S3Config{
		Endpoint: "https://s3.example.com", Bucket: "backups", Prefix: "clusters/blue",
		AccessKeyFile: "/etc/nodeagent/s3/access-key", SecretKeyFile: "credential:s3-secret",
	}
}

func TestS3ConfigValidate(t *testing.T) {
	type config = etcdbackup.S3Config
	const secret = "wJalrXUtnFEMI"
	for name, tt := range map[string]struct {
		change func(*config)
		want   []string // beginnings of the error's lines, after the store's path
	}{
		"as documented": {func(*config) {}, nil},
		"with a port":   {func(c *config) { c.Endpoint = "https://s3.example.com:9000" }, nil},
		"everything": {func(c *config) {
			c.Region, c.PathStyle, c.CAFile, c.SSE = "eu-central-1", true, "/etc/ca.crt", "aws:kms:arn:aws:kms:eu:1:key/2"
		}, nil},
		"SSE":                     {func(c *config) { c.SSE = "AES256" }, nil},
		"the account's KMS key":   {func(c *config) { c.SSE = "aws:kms" }, nil},
		"the whole bucket":        {func(c *config) { c.Prefix = "" }, nil},
		"http on this host":       {func(c *config) { c.Endpoint, c.PathStyle = "http://127.0.0.1:7070", true }, nil},
		"http on this host, name": {func(c *config) { c.Endpoint = "http://localhost:7070" }, nil},
		"http that is allowed":    {func(c *config) { c.Endpoint, c.AllowPlaintext = "http://s3.example.com", true }, nil},
		"address":                 {func(c *config) { c.Endpoint, c.PathStyle = "https://[2001:db8::1]:9000", true }, nil},
		"bucket with dots":        {func(c *config) { c.Bucket, c.PathStyle = "our.backups", true }, nil},
		"empty":                   {func(c *config) { *c = config{} }, []string{"endpoint: is missing", "bucket: is missing", "accessKeyFile: is missing", "secretKeyFile: is missing"}},
		"http elsewhere":          {func(c *config) { c.Endpoint = "http://s3.example.com" }, []string{"endpoint: "}},
		"http to a private net":   {func(c *config) { c.Endpoint, c.PathStyle = "http://10.0.0.1", true }, []string{"endpoint: "}},
		"no scheme":               {func(c *config) { c.Endpoint = "s3.example.com" }, []string{"endpoint: "}},
		"another scheme":          {func(c *config) { c.Endpoint = "s3://backups" }, []string{"endpoint: "}},
		"with the bucket":         {func(c *config) { c.Endpoint = "https://s3.example.com/backups" }, []string{"endpoint: "}},
		"with a slash":            {func(c *config) { c.Endpoint = "https://s3.example.com/" }, []string{"endpoint: "}},
		"with a query":            {func(c *config) { c.Endpoint = "https://s3.example.com?x" }, []string{"endpoint: "}},
		"with its own port":       {func(c *config) { c.Endpoint = "https://s3.example.com:443" }, []string{"endpoint: "}},
		"in upper case":           {func(c *config) { c.Endpoint = "https://S3.example.com" }, []string{"endpoint: "}},
		"with a password":         {func(c *config) { c.Endpoint = "https://me:" + secret + "@s3.example.com" }, []string{"endpoint: is no URL"}},
		"with a broken password":  {func(c *config) { c.Endpoint = "https://me:" + secret + "%@s3.example.com" }, []string{"endpoint: is no URL"}},
		"address, virtual host":   {func(c *config) { c.Endpoint = "https://192.0.2.1" }, []string{"endpoint: "}},
		"bucket with dots, host":  {func(c *config) { c.Bucket = "our.backups" }, []string{"bucket: "}},
		"bucket with capitals":    {func(c *config) { c.Bucket = "Backups" }, []string{"bucket: "}},
		"bucket with a slash":     {func(c *config) { c.Bucket, c.PathStyle = "backups/blue", true }, []string{"bucket: "}},
		"short bucket":            {func(c *config) { c.Bucket, c.PathStyle = "ab", true }, []string{"bucket: "}},
		"prefix with slashes":     {func(c *config) { c.Prefix = "/clusters/" }, []string{"prefix: "}},
		"prefix upwards":          {func(c *config) { c.Prefix = "../blue" }, []string{"prefix: "}},
		"prefix, unclean":         {func(c *config) { c.Prefix = "a//b" }, []string{"prefix: "}},
		"prefix, control":         {func(c *config) { c.Prefix = "a\nb" }, []string{"prefix: "}},
		"prefix, long":            {func(c *config) { c.Prefix = strings.Repeat("a", 513) }, []string{"prefix: "}},
		"region":                  {func(c *config) { c.Region = "eu central" }, []string{"region: "}},
		"relative CA":             {func(c *config) { c.CAFile = "ca.crt" }, []string{"caFile: "}},
		"the key itself":          {func(c *config) { c.SecretKeyFile = secret }, []string{"secretKeyFile: "}},
		"credential without name": {func(c *config) { c.AccessKeyFile = "credential:" }, []string{"accessKeyFile: "}},
		"unknown SSE":             {func(c *config) { c.SSE = "aes256" }, []string{"sse: "}},
		"KMS key with a space":    {func(c *config) { c.SSE = "aws:kms:a b" }, []string{"sse: "}},
	} {
		t.Run(name, func(t *testing.T) {
			s3 := s3Config()
			tt.change(&s3)
			c := etcdbackup.DefaultConfig()
			c.Stores = append(c.Stores, etcdbackup.StoreConfig{S3: &s3})
			err := c.Validate()
			if err == nil {
				if tt.want != nil {
					t.Errorf("accepted, want %q", tt.want)
				}
				return
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the secret is in: %v", err)
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tt.want) {
				t.Fatalf("%q, want %q", lines, tt.want)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(lines[i], "stores[1].s3."+want) {
					t.Errorf("%q, want %q", lines[i], want)
				}
			}
		})
	}
}

func TestS3StoresTwice(t *testing.T) {
	one, other := s3Config(), s3Config()
	c := etcdbackup.DefaultConfig()
	c.Stores = []etcdbackup.StoreConfig{{S3: &one}, {S3: &other}}
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "stores[1]") {
		t.Errorf("two stores in one folder: %v", err)
	}
	other.Prefix = "clusters/green"
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	c.Stores[0].File = &etcdbackup.FileConfig{Dir: "/a"}
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "stores[0]: file and s3") {
		t.Errorf("two kinds in one item: %v", err)
	}
}

func TestHostOf(t *testing.T) {
	for name, want := range map[string]string{
		"20261121T120000Z-cp-1-100.db.zst.age": "cp-1", "20261121T120000Z-cp-1-100.files.tar.zst.age": "cp-1",
		"20261121T120000Z-cp-1-100.db.json": "cp-1", "README": "", "": "",
	} {
		if got := etcdbackup.HostOf(name); got != want {
			t.Errorf("%s: host %q, want %q", name, got, want)
		}
	}
}
