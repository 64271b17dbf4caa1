package identity

import (
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// SignAs signs any claims with the cluster's own key.
func SignAs(t *testing.T, s *Service, c jwt.MapClaims) string {
	t.Helper()
	key, err := s.signer()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jwt.NewWithClaims(jwt.SigningMethodRS256, c).SignedString(key.rsa)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
