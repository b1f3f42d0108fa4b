// Command probe checks from inside a pod what pods need of the cluster: that names resolve, that pods and Services
// answer, or are refused, and that a volume is written to and read by several. It ends when all of it holds, or fails when time is up.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// attempts is how many of a check's tries in a row must succeed: a Service spreads them over its pods.
const attempts = 5

func main() {
	address := flag.String("serve", ":8080", "where to answer HTTP for the other pods' checks")
	write := flag.String("write", "", "a file to write")
	read := flag.String("read", "", "files that must appear, with commas between")
	resolve := flag.String("resolve", "", "names that must resolve, with commas between")
	get := flag.String("get", "", "URLs that must answer, with commas between")
	refused := flag.String("refused", "", "URLs that must come to be refused, with commas between")
	timeout := flag.Duration("timeout", time.Minute, "how long to try")
	linger := flag.Duration("linger", 5*time.Second, "how long to go on serving the others after success")
	flag.Parse()

	go func() { fail(http.ListenAndServe(*address, http.HandlerFunc(answer))) }()
	if *write != "" {
		fail(os.WriteFile(*write, []byte("probe\n"), 0o644))
	}
	deadline := time.Now().Add(*timeout)
	for list, check := range map[*string]func(string) error{read: stat, resolve: lookup, get: fetch, refused: refuse} {
		for _, item := range strings.FieldsFunc(*list, func(r rune) bool { return r == ',' }) {
			began, err := time.Now(), check(item)
			for ; err != nil && time.Now().Before(deadline); err = check(item) {
				time.Sleep(200 * time.Millisecond)
			}
			fail(err)
			fmt.Printf("%s: ok after %.1f s\n", item, time.Since(began).Seconds())
		}
	}
	time.Sleep(*linger)
}

func answer(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, os.Getenv("HOSTNAME"))
}

func stat(path string) error {
	_, err := os.Stat(path)
	return err
}

func lookup(name string) error {
	_, err := net.LookupHost(name)
	return err
}

func fetch(url string) error {
	client := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for range attempts {
		response, err := client.Get(url)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, response.Body)
		if err = errors.Join(err, response.Body.Close()); err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", url, response.Status)
		}
	}
	return nil
}

// refuse succeeds once a connection is refused: a policy takes a moment to reach the node of a new pod.
func refuse(url string) error {
	if fetch(url) == nil {
		return fmt.Errorf("%s answers", url)
	}
	return nil
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
