// Command volume makes and removes the directory of a local-path volume; local-path-provisioner runs it in a pod.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	path := flag.String("p", "", "the volume's directory")
	action := flag.String("a", "", "create or delete")
	flag.String("s", "", "size in bytes, not enforced")
	flag.String("m", "", "volume mode, always Filesystem")
	flag.Parse()
	var err error
	switch *action {
	case "create":
		if err = os.MkdirAll(*path, 0o777); err == nil {
			// Pods run under any user ID, and the umask took the write bits away. Sticky bits would stop
			// one pod from replacing the files of another.
			err = os.Chmod(*path, 0o777)
		}
	case "delete":
		err = os.RemoveAll(*path)
	default:
		err = fmt.Errorf("action %q is neither create nor delete", *action)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
