"""What `make demo-down` leaves: the CRDs, and nothing else. It runs last, since it takes Hone away."""

import subprocess
import sys

from dev import demo, install
from dev.kube import Kube
from dev.uv import ROOT


def test_demo_down_leaves_the_crds_and_nothing_else(kube: Kube, hone: str) -> None:
    subprocess.run([sys.executable, "-m", "dev.demo", "--cleanup"], cwd=ROOT, check=True, timeout=600)
    assert kube.get("namespace", demo.NAMESPACE) is None
    assert kube.get("namespace", install.SYSTEM_NAMESPACE) is None
    for kind in ("clusterrole", "clusterrolebinding"):
        assert kube.list(kind, "app.kubernetes.io/name=hone") == []
    for crd in ("finetunejobs.hone.dev", "modeldeployments.hone.dev"):
        assert kube.get("customresourcedefinition", crd) is not None
