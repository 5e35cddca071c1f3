package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

var (
	errEmpty         = errors.New("is empty")
	errNoCertificate = errors.New("holds no certificate")
	errCut           = errors.New("a CERTIFICATE block is cut short or damaged")
)

// found is what a PEM bundle holds. Blocks other than certificates are counted, never kept.
type found struct {
	certificates []Certificate // with Index, and without Path, User and Kind
	others       int
}

// readPEM reads every certificate of a PEM bundle. The error joins what is wrong with it; the
// certificates that could be read are returned all the same. No error quotes the data.
func readPEM(data []byte) (found, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return found{}, errEmpty
	}
	var (
		out    found
		errs   []error
		blocks int
	)
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			out.others++
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			errs = append(errs, fmt.Errorf("certificate %d: %w", blocks, err))
		} else {
			out.certificates = append(out.certificates, describe(c, blocks))
		}
		blocks++
	}
	// The decoder passes over what it cannot decode, so a cut block shows only in the count.
	begun := bytes.Count(data, []byte("-----BEGIN CERTIFICATE-----"))
	switch {
	case begun > blocks:
		errs = append(errs, errCut)
	case blocks == 0:
		errs = append(errs, errNoCertificate)
	}
	return out, errors.Join(errs...)
}

func describe(c *x509.Certificate, index int) Certificate {
	sans := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		sans = append(sans, ip.String())
	}
	return Certificate{
		Index:     index,
		IsCA:      c.IsCA,
		Subject:   c.Subject.CommonName,
		Issuer:    c.Issuer.CommonName,
		SANs:      sans,
		Serial:    serial(c),
		NotBefore: c.NotBefore.UTC(),
		NotAfter:  c.NotAfter.UTC(),
	}
}

func serial(c *x509.Certificate) string {
	digits := c.SerialNumber.Bytes()
	if len(digits) == 0 {
		return "00"
	}
	return string(bytes.ToUpper([]byte(hex.EncodeToString(digits))))
}
