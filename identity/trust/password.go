package trust

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/shoal-project/shoal/internal/errs"
)

const (
	// AttemptBurst is how often an address may try to become trusted before it is slowed down to once a second.
	AttemptBurst = 10
	// maxPassword bounds a trust password in bytes.
	maxPassword = 1024
	// passwordRounds is OWASP's number for PBKDF2 with SHA-512 (Password Storage Cheat Sheet, 2023).
	passwordRounds = 210_000
	passwordScheme = "pbkdf2-sha512"
	// maxAddresses bounds the addresses that are told apart.
	maxAddresses = 4096
)

// HashPassword returns what may be stored of a trust password.
func HashPassword(password string) (string, error) {
	if password == "" || len(password) > maxPassword {
		return "", errs.Invalid("a trust password has 1 to %d bytes", maxPassword)
	}
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // crypto/rand.Read never returns an error
	key, err := pbkdf2.Key(sha512.New, password, salt, passwordRounds, 32)
	if err != nil {
		return "", fmt.Errorf("hash the trust password: %w", err)
	}
	enc := base64.RawStdEncoding.EncodeToString
	return strings.Join([]string{passwordScheme, strconv.Itoa(passwordRounds), enc(salt), enc(key)}, "$"), nil
}

func passwordMatches(hash, password string) bool {
	parts := strings.Split(hash, "$")
	if len(parts) != 4 || parts[0] != passwordScheme || len(password) > maxPassword {
		return false
	}
	rounds, err := strconv.Atoi(parts[1])
	salt, serr := base64.RawStdEncoding.DecodeString(parts[2])
	want, kerr := base64.RawStdEncoding.DecodeString(parts[3])
	if err != nil || serr != nil || kerr != nil || rounds < 1 || len(want) == 0 {
		return false
	}
	got, err := pbkdf2.Key(sha512.New, password, salt, rounds, len(want))
	return err == nil && subtle.ConstantTimeCompare(got, want) == 1
}

// tooMany has a status that no class of errs has.
type tooMany struct{}

func (tooMany) Error() string {
	return "too many attempts to become trusted; try again in a few seconds"
}
func (tooMany) HTTPStatus() int { return http.StatusTooManyRequests }

// guesses slows down who tries secrets.
type guesses struct {
	passwords *rate.Limiter
	one       sync.Mutex // one hash is computed at a time

	mu     sync.Mutex
	byAddr map[netip.Prefix]*rate.Limiter
	others *rate.Limiter // shared by addresses that found the table full
}

func newGuesses() *guesses {
	return &guesses{passwords: rate.NewLimiter(5, 20), byAddr: map[netip.Prefix]*rate.Limiter{}, others: rate.NewLimiter(1, AttemptBurst)}
}

// allow counts an attempt of an address. Of IPv6 the network of 64 bits counts, which one host has for itself.
func (g *guesses) allow(a netip.Addr, now time.Time) error {
	a = a.Unmap()
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.WithZone("").Prefix(bits) // the zero address has the zero prefix: one more bucket
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.byAddr[p]
	if l == nil {
		if len(g.byAddr) >= maxAddresses {
			for k, old := range g.byAddr {
				if old.TokensAt(now) >= AttemptBurst {
					delete(g.byAddr, k)
				}
			}
		}
		if l = g.others; len(g.byAddr) < maxAddresses {
			l = rate.NewLimiter(1, AttemptBurst)
			g.byAddr[p] = l
		}
	}
	if !l.AllowN(now, 1) {
		return tooMany{}
	}
	return nil
}

// compute counts a password that will be hashed.
func (g *guesses) compute(now time.Time) error {
	if !g.passwords.AllowN(now, 1) {
		return tooMany{}
	}
	return nil
}

func (g *guesses) right(hash, password string) bool {
	g.one.Lock()
	defer g.one.Unlock()
	return passwordMatches(hash, password)
}
