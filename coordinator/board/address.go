package board

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"

	"github.com/redis/go-redis/v9"
)

// userinfo is what stands before the last @ of a URL's authority: a password may
// hold anything, also what should have been escaped.
var userinfo = regexp.MustCompile(`://(.*)@`)

// Password reports whether an address holds one.
func Password(addr string) bool {
	m := userinfo.FindStringSubmatch(addr)
	return m != nil && strings.Contains(m[1], ":")
}

// Mask is an address as it may be shown.
func Mask(addr string) string {
	return userinfo.ReplaceAllStringFunc(addr, func(s string) string {
		user, _, secret := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(s, "://"), "@"), ":")
		if !secret {
			return s
		}
		return "://" + user + ":xxxxx@"
	})
}

// parse reads HOST:PORT or a URL. Its errors name the address without what may be a password.
func parse(addr string) (*redis.Options, error) {
	if !strings.Contains(addr, "://") {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			if at := strings.LastIndex(addr, "@"); at >= 0 {
				addr = "xxxxx" + addr[at:]
			}
			return nil, fmt.Errorf("%q: want HOST:PORT, or a URL such as redis://USER@HOST:PORT/DB", addr)
		}
		return &redis.Options{Addr: addr}, nil
	}
	o, err := redis.ParseURL(addr)
	if err == nil {
		return o, nil
	}
	if strings.Contains(addr, "@") {
		// The library's words quote pieces of the address, and they may be any.
		err = errors.New("characters such as / # ? % and @ in a password have to be escaped there; a password file needs no escapes")
	}
	return nil, fmt.Errorf("%s is not a URL such as redis://USER@HOST:PORT/DB (rediss:// with TLS): %w", Mask(addr), err)
}

// explain adds what to do to Redis's refusal of a password.
func explain(err error) error {
	if err == nil {
		return nil
	}
	for _, sign := range []string{"NOAUTH", "WRONGPASS", "NOPERM"} {
		if strings.Contains(err.Error(), sign) {
			return fmt.Errorf("%w: see --redis-password-file (or ATELIER_REDIS_PASSWORD), and the user in --redis redis://USER@HOST:PORT", err)
		}
	}
	return err
}
