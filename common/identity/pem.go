package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

const (
	// maxPEM bounds what is read of outside text, in bytes.
	maxPEM = 64 << 10
	// maxTrusted bounds the authorities believed at a time.
	maxTrusted = 8

	blockCert = "CERTIFICATE"
	blockKey  = "PRIVATE KEY"
)

func certPEM(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: blockCert, Bytes: der}) }

// keyPEM cannot fail: the curve is known.
func keyPEM(k *ecdsa.PrivateKey) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockKey, Bytes: der})
}

// parseCerts reads certificates and nothing else.
func parseCerts(text []byte) ([]*x509.Certificate, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("certificates of %d bytes, at most %d are allowed", len(text), maxPEM)
	}
	var out []*x509.Certificate
	for rest := bytes.TrimSpace(text); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil || b.Type != blockCert {
			return nil, fmt.Errorf("no certificate in PEM form where the %d. one belongs", len(out)+1)
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("the %d. certificate: %w", len(out)+1, err)
		}
		if out = append(out, c); len(out) > maxTrusted {
			return nil, fmt.Errorf("more than %d certificates", maxTrusted)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("no certificate in it")
	}
	return out, nil
}

// ParseTrusted reads PEM certificates of the authorities of one cluster.
func ParseTrusted(text []byte) (Trusted, error) {
	certs, err := parseCerts(text)
	if err != nil {
		return nil, err
	}
	for _, c := range certs {
		id, err := clusterOf(c)
		if err != nil {
			return nil, err
		}
		if first, _ := clusterOf(certs[0]); id != first {
			return nil, fmt.Errorf("authorities of two clusters, %s and %s", first, id)
		}
	}
	return certs, nil
}

// parseKey reads a PEM key.
func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("a key of %d bytes, at most %d are allowed", len(text), maxPEM)
	}
	b, rest := pem.Decode(text)
	if b == nil || b.Type != blockKey || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("no private key in PEM form")
	}
	k, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		return nil, errors.New("the private key cannot be read") // without a word of it
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("the private key is not ECDSA P-256")
	}
	return key, nil
}

// splitNode takes a node's file apart: certificates first, then the key.
func splitNode(text []byte) (certs, key []byte, err error) {
	at := bytes.Index(text, []byte("-----BEGIN "+blockKey))
	if at < 0 {
		return nil, nil, errors.New("no private key in PEM form")
	}
	return text[:at], text[at:], nil
}
