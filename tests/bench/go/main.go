// The reverse proxy that a Go programmer would write: httputil.ReverseProxy with a cached ID
// token, the way Google's cloud-run-proxy works. Standard library only.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

type tokens struct {
	mu      sync.Mutex
	token   string
	expires time.Time
}

// get returns a token with at least half a minute to live.
func (t *tokens) get(metadata, audience string) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Until(t.expires) > 30*time.Second {
		return t.token, nil
	}
	request, err := http.NewRequest("GET", "http://"+metadata+
		"/computeMetadata/v1/instance/service-accounts/default/identity?format=full&audience="+
		url.QueryEscape(audience), nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("Metadata-Flavor", "Google")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	parts := strings.Split(string(body), ".")
	if response.StatusCode != 200 || len(parts) != 3 {
		return "", fmt.Errorf("metadata server: %s", response.Status)
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", err
	}
	var claims struct{ Exp int64 }
	if err := json.Unmarshal(raw, &claims); err != nil {
		return "", err
	}
	t.token, t.expires = string(body), time.Unix(claims.Exp, 0)
	return t.token, nil
}

func main() {
	listen := flag.String("listen", "", "host:port")
	upstream := flag.String("upstream", "", "URL")
	audience := flag.String("audience", "", "audience of the token")
	roots := flag.String("ca", "", "PEM file")
	http2 := flag.Bool("http2", false, "HTTP/2 to the upstream")
	flag.Parse()

	target, err := url.Parse(*upstream)
	if err != nil {
		log.Fatal(err)
	}
	pem, err := os.ReadFile(*roots)
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)

	var cache tokens
	metadata := os.Getenv("GCE_METADATA_HOST")
	proxy := &httputil.ReverseProxy{
		FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			// A Rewrite cannot refuse: without a token the request goes out bare.
			if token, err := cache.get(metadata, *audience); err == nil {
				r.Out.Header.Set("X-Serverless-Authorization", "Bearer "+token)
			}
		},
		Transport: &http.Transport{
			MaxIdleConns:        4096,
			MaxIdleConnsPerHost: 4096,
			DisableCompression:  true,
			ForceAttemptHTTP2:   *http2,
			TLSClientConfig:     &tls.Config{RootCAs: pool},
		},
	}
	log.Fatal(http.ListenAndServe(*listen, proxy))
}
