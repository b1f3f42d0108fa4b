//go:build tools

// Package tools keeps in go.mod the commands that run beside Kubernetes. They are in one module with CoreDNS so that all
// three are built on one version of the Kubernetes client, which is most of what each compiles.
package tools

import (
	_ "github.com/rancher/local-path-provisioner"
	_ "sigs.k8s.io/kwok/cmd/kwok"
)
