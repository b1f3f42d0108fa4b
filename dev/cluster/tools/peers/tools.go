//go:build tools

// Package tools keeps in go.mod the operators that dev/bench_operator compares Hone with.
package tools

import (
	_ "github.com/kubeflow/trainer/v2/cmd/trainer-controller-manager"
	_ "sigs.k8s.io/jobset"
)
