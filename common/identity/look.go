package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"time"
)

// Look asks who answers at an address, HOST:PORT, and returns the authority that it shows: nobody has said that it is
// the right one. A person has to compare its fingerprint before anything secret is sent there.
func Look(ctx context.Context, addr string) (Trusted, error) {
	var found Trusted
	c := base(time.Now)
	c.InsecureSkipVerify = true // what is shown is all that is asked; VerifyConnection wants it to fit together
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		for _, sent := range cs.PeerCertificates[1:] {
			if _, err := clusterOf(sent); err != nil {
				continue
			}
			t := Trusted{sent}
			if err := t.verify(cs, t.pool(), time.Now(), Only("the API", Coordinator)); err != nil {
				return err
			}
			found = t
			return nil
		}
		return errors.New("it shows no certificate of a cluster of Atelier: another program answers there, or a proxy")
	}
	d := tls.Dialer{Config: c}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, Explain(err)
	}
	conn.Close()
	return found, nil
}
