"""What `down` removes: only our rules and mounts."""

from pathlib import Path

from dev.cluster.cleanup import mounts_under
from dev.cluster.network import removal

NAT = """\
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-A - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 10.88.0.0/16 ! -d 10.88.0.0/16 -m comment --comment "hone dev cluster" -j MASQUERADE
-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-A
COMMIT
"""


def test_our_rules_and_kubernetes_chains_are_removed_and_others_stay():
    assert removal("nat", NAT.splitlines()) == [
        "*nat",
        '-D PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        '-D POSTROUTING -s 10.88.0.0/16 ! -d 10.88.0.0/16 -m comment --comment "hone dev cluster" -j MASQUERADE',
        "-F KUBE-SERVICES",
        "-F KUBE-SVC-A",
        "-X KUBE-SERVICES",
        "-X KUBE-SVC-A",
        "COMMIT",
    ]


def test_a_table_without_our_rules_is_left_alone():
    others = [line for line in NAT.splitlines() if "KUBE" not in line and "hone" not in line]
    assert removal("nat", others) == []


def test_inner_mounts_come_first_and_similar_names_are_spared():
    mountinfo = "\n".join(
        f"{number} 1 0:1 / {point} rw - tmpfs tmpfs rw"
        for number, point in enumerate(["/run/hone/a", "/run/hone/a/b", "/run/honey", "/run/hone\\040x", "/run/hone"])
    )
    assert mounts_under(mountinfo, [Path("/run/hone")]) == ["/run/hone", "/run/hone/a/b", "/run/hone/a"]


def test_escaped_spaces_in_mount_points_are_read():
    assert mounts_under("1 1 0:1 / /a\\040b/c rw - tmpfs t rw", [Path("/a b")]) == ["/a b/c"]
