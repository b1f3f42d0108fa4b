"""The cluster's certificates and configuration files."""

import json
import socket
import ssl
import struct
import subprocess
import threading
import tomllib

import pytest

from dev.cluster import addons, containerd, deps, kwok, node, paths
from dev.cluster.certs import Authority, Subject, server_names
from dev.cluster.say import wait_until


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "certs")


def test_a_certificate_is_signed_and_carries_user_groups_and_names(authority):
    subject = Subject("system:node:hone", ("system:nodes",), server_names("127.0.0.1", "10.96.0.1"))
    certificate, key = authority.issue("kubelet", subject)
    command = ["openssl", "verify", "-CAfile", str(authority.certificate), str(certificate)]
    assert subprocess.run(command, capture_output=True).returncode == 0
    text = subprocess.run(
        ["openssl", "x509", "-noout", "-text", "-in", str(certificate)], capture_output=True, text=True, check=True
    ).stdout
    assert "O = system:nodes, CN = system:node:hone" in text
    assert "CA:FALSE" in text
    for name in ("DNS:kubernetes.default.svc.cluster.local", "IP Address:127.0.0.1", "IP Address:10.96.0.1"):
        assert name in text
    assert key.stat().st_mode & 0o077 == 0


def test_what_was_issued_is_kept(authority):
    first = authority.issue("admin", Subject("admin"))[0].read_bytes()
    again = Authority(authority.folder)
    assert again.issue("admin", Subject("admin"))[0].read_bytes() == first


def test_a_kubeconfig_has_all_it_needs_and_only_its_owner_reads_it(authority, tmp_path):
    path = authority.kubeconfig(tmp_path / "kubeconfig", "https://127.0.0.1:1", "admin", Subject("admin"))
    content = json.loads(path.read_text())
    assert content["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:1"
    assert path.stat().st_mode & 0o077 == 0
    from dev.cluster.api import Api

    api = Api(path)
    assert isinstance(api._context, ssl.SSLContext)
    assert api.ready() is False


def test_containerd_configuration_is_valid_toml_with_our_settings(monkeypatch, tmp_path):
    monkeypatch.setenv("HONE_CACHE", str(tmp_path))
    cri = tomllib.loads(containerd.config("127.0.0.1:5005/hone/node:1"))["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["sandbox_image"] == "127.0.0.1:5005/hone/node:1"
    assert cri["restrict_oom_score_adj"] is True
    assert cri["cni"]["conf_dir"] == str(tmp_path / "cluster" / "cni")


def test_containerd_for_cleaning_up_runs_no_pods():
    assert "io.containerd.grpc.v1.cri" in tomllib.loads(containerd.config("", cri=False))["disabled_plugins"]


def test_kubelet_accepts_old_cgroups_full_disks_and_no_anonymous_calls(authority):
    config = node.kubelet_config(authority, *authority.issue("kubelet", Subject("kubelet")))
    assert config["failCgroupV1"] is False
    assert config["evictionHard"]["nodefs.available"] == "1%"
    assert config["authentication"]["anonymous"] == {"enabled": False}
    json.dumps(config)


def test_dns_answers_on_the_bridge_only(tmp_path):
    assert f"bind {paths.BRIDGE_ADDRESS}\n" in addons.corefile(tmp_path)


@pytest.mark.parametrize(
    ("flags", "answers", "expected"),
    [(0x8180, 1, True), (0x8180, 0, False), (0x8183, 0, False)],
    ids=["an address", "no address", "no such name"],
)
def test_a_name_resolves_when_the_server_has_an_address(flags, answers, expected):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        questions = []

        def answer():
            query, client = server.recvfrom(512)
            questions.append(query)
            server.sendto(query[:2] + struct.pack(">HHHHH", flags, 1, answers, 0, 0) + query[12:], client)

        thread = threading.Thread(target=answer)
        thread.start()
        resolved = addons.resolves("pod-0.gang", "127.0.0.1", server.getsockname()[1])
        thread.join()
    assert resolved is expected
    assert b"\x05pod-0\x04gang\x00" in questions[0]


def test_a_name_does_not_resolve_where_nobody_answers():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    assert addons.resolves("kubernetes.default", "127.0.0.1", port) is False


def test_stages_replace_pods_but_keep_nodes_and_deletion():
    assert [s["metadata"]["name"] for s in kwok.base_stages()] == ["node-ready", "pod-delete"]
    ended = kwok.pod_stages(complete_after_ms=7)[-1]
    assert ended["spec"]["delay"] == {"durationMilliseconds": 7}
    assert kwok.EXIT_CODE in ended["spec"]["next"]["statusTemplate"]


@pytest.mark.parametrize("configured", [None, "example.com", f"example.com,{paths.NO_PROXY}"])
def test_a_proxy_is_not_used_for_the_cluster(monkeypatch, configured):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    if configured:
        monkeypatch.setenv("NO_PROXY", configured)
    expected = f"example.com,{paths.NO_PROXY}" if configured else paths.NO_PROXY
    assert paths.no_proxy() == {"NO_PROXY": expected, "no_proxy": expected}


def test_missing_packages_are_named_once(monkeypatch):
    packages = {"no-such-command": "b", "/no/such/file": "a", "no-such-either": "b", "sh": "dash"}
    monkeypatch.setattr(deps, "PACKAGES", packages)
    assert deps.missing() == ["a", "b"]


def test_without_root_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(SystemExit, match="needs root"):
        deps.check_machine()


def test_waiting_too_long_names_what_did_not_happen():
    with pytest.raises(TimeoutError, match="the moon being full did not happen within 0 s"):
        wait_until(lambda: False, "the moon being full", 0.05, interval=0.01)
