package etcdbackup

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"regexp"
	"strings"
	"unicode"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// S3Config is a store in a bucket of S3, or of a server that speaks its protocol.
type S3Config struct {
	// Endpoint is the URL of the server, as in https://s3.eu-central-1.amazonaws.com, without the
	// bucket. http is for a server on this host; for another one it has to be allowed (allowPlaintext).
	Endpoint string `yaml:"endpoint"`
	// Bucket is the bucket's name. It is never made by nodeagent.
	Bucket string `yaml:"bucket"`
	// Prefix is the folder in the bucket, as in clusters/blue. Only what lies directly in it is looked
	// at. Clusters may share one: each keeps and removes its own backups.
	Prefix string `yaml:"prefix"`
	// Region is the bucket's. Without it the one that the endpoint names is used, or us-east-1, which
	// is what servers without regions expect.
	Region string `yaml:"region"`
	// PathStyle puts the bucket behind the endpoint, as in https://s3.example.com/bucket. Most servers
	// other than Amazon's need it. Without it the bucket is part of the host name: https://bucket.s3.example.com.
	PathStyle bool `yaml:"pathStyle"`
	// CAFile verifies the server's certificate, in place of the authorities that this host knows.
	CAFile string `yaml:"caFile"`
	// AccessKeyFile holds the access key's id: an absolute path to a file that only root can read, or
	// credential:NAME for one that systemd gives the service. It is read anew when it changes.
	AccessKeyFile string `yaml:"accessKeyFile"`
	// SecretKeyFile holds the secret of the access key, as AccessKeyFile does its id.
	SecretKeyFile string `yaml:"secretKeyFile"`
	// SSE asks the server to encrypt what it stores: AES256, aws:kms, or aws:kms:KEY with the id or
	// the ARN of a key. It is no replacement for recipients, since the server can read everything.
	SSE string `yaml:"sse"`
	// AllowPlaintext allows that others can read the backups of this store: unencrypted ones, where no
	// recipients are given, and http to another host.
	AllowPlaintext bool `yaml:"allowPlaintext"`
}

// The values of S3Config.SSE; KMS may be followed by a colon and a key.
const (
	SSEAES256 = "AES256"
	SSEKMS    = "aws:kms"
)

var (
	// Older servers allow more than Amazon does today.
	bucketName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]$`)
	// A host name's label, as a bucket has to be to be part of one below a wildcard certificate.
	bucketLabel = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*[a-z0-9]$`)
	regionName  = regexp.MustCompile(`^[A-Za-z0-9_-]{0,64}$`)
	kmsKey      = regexp.MustCompile(`^[A-Za-z0-9:/_-]+$`)
)

const maxPrefix = 512 // of the 1024 bytes that S3 leaves for a key

// validate returns every mistake, each beginning with its field.
func (c S3Config) validate() (errs []error) {
	add := func(field string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf(".s3.%s: %w", field, err))
		}
	}
	add("endpoint", c.validateEndpoint())
	add("bucket", c.validateBucket())
	add("prefix", validatePrefix(c.Prefix))
	if !regionName.MatchString(c.Region) {
		add("region", fmt.Errorf("%q is no name of a region, such as eu-central-1", c.Region))
	}
	if c.CAFile != "" && (!path.IsAbs(c.CAFile) || path.Clean(c.CAFile) != c.CAFile || strings.ContainsFunc(c.CAFile, unicode.IsControl)) {
		add("caFile", fmt.Errorf("%q is not a plain absolute path", c.CAFile))
	}
	add("accessKeyFile", validateSecretFile(c.AccessKeyFile))
	add("secretKeyFile", validateSecretFile(c.SecretKeyFile))
	if key, of := strings.CutPrefix(c.SSE, SSEKMS+":"); c.SSE != "" && c.SSE != SSEAES256 && c.SSE != SSEKMS && (!of || !kmsKey.MatchString(key)) {
		add("sse", fmt.Errorf("%q is neither %s nor %s nor %[3]s:KEY", c.SSE, SSEAES256, SSEKMS))
	}
	return errs
}

// validateEndpoint does not quote what may have a password in it.
func (c S3Config) validateEndpoint() error {
	const form = "as in https://s3.eu-central-1.amazonaws.com"
	if c.Endpoint == "" {
		return errors.New("is missing, " + form)
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.User != nil || strings.Contains(c.Endpoint, "@") {
		return errors.New("is no URL of a server, " + form)
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.Scheme+"://"+u.Host != c.Endpoint {
		return fmt.Errorf("%q is no URL of a server alone, %s", c.Endpoint, form)
	}
	if u.Host != strings.ToLower(u.Host) || u.Port() == map[string]string{"https": "443", "http": "80"}[u.Scheme] {
		return fmt.Errorf("%q is to be in lower case, and without the port that is the scheme's own", c.Endpoint)
	}
	address := net.ParseIP(u.Hostname())
	if address != nil && !c.PathStyle {
		return fmt.Errorf("%q has an address, which no bucket can be a part of: pathStyle: true", c.Endpoint)
	}
	local := u.Hostname() == "localhost" || address != nil && address.IsLoopback()
	if u.Scheme == "http" && !local && !c.AllowPlaintext {
		return fmt.Errorf("%q: whoever is on the way could read the backups and give out others: use https, with caFile for a certificate of your own, or allowPlaintext: true", c.Endpoint)
	}
	return nil
}

func (c S3Config) validateBucket() error {
	switch {
	case c.Bucket == "":
		return errors.New("is missing")
	case !bucketName.MatchString(c.Bucket) || strings.Contains(c.Bucket, ".."):
		return fmt.Errorf("%q is no name of a bucket: 3 to 63 letters, digits, dots and dashes", c.Bucket)
	case !c.PathStyle && !bucketLabel.MatchString(c.Bucket):
		return fmt.Errorf("%q cannot be part of a host name below a certificate: pathStyle: true", c.Bucket)
	}
	return nil
}

func validatePrefix(prefix string) error {
	switch {
	case prefix == "":
		return nil
	case len(prefix) > maxPrefix:
		return fmt.Errorf("is longer than %d bytes", maxPrefix)
	case path.Clean(prefix) != prefix || path.IsAbs(prefix) || prefix == "." || prefix == ".." || strings.HasPrefix(prefix, "../"):
		return fmt.Errorf("%q is no plain folder, such as clusters/blue, without a slash at either end", prefix)
	case strings.ContainsFunc(prefix, func(r rune) bool { return !unicode.IsGraphic(r) || r == '\\' || r == unicode.ReplacementChar }):
		return fmt.Errorf("%q has characters that not every server keeps", prefix)
	}
	return nil
}

func validateSecretFile(source string) error {
	if source == "" {
		return errors.New("is missing")
	}
	return host.ValidateSecret(source)
}

// String is what the store is called wherever it is named.
func (c S3Config) String() string {
	return strings.TrimSuffix("s3 "+c.Endpoint+"/"+c.Bucket+"/"+c.Prefix, "/")
}
