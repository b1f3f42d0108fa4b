"""Background processes of the local cluster: they outlive their starter and are never mistaken for others."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from dev.cluster.processes import Identity, Processes, identify, parse_stat
from dev.cluster.say import wait_until


@pytest.fixture
def processes(tmp_path):
    instance = Processes(tmp_path / "pids", tmp_path / "logs")
    yield instance
    for name in instance.names():
        instance.stop(name, grace=0.0)


def test_a_command_with_spaces_and_parentheses_does_not_shift_the_start_time():
    fields = ["S", *(str(n) for n in range(4, 30))]
    assert parse_stat(f"12 (a) b (c)) {' '.join(fields)}") == ("S", 22)


def test_a_started_process_runs_in_its_own_session_and_writes_to_its_log(processes):
    processes.start("sleeper", ["sh", "-c", "echo hello; exec sleep 60"])
    identity = processes.running("sleeper")
    assert identity is not None
    session = int(Path(f"/proc/{identity.pid}/stat").read_text().rsplit(")", 1)[1].split()[3])
    assert session == identity.pid
    wait_until(lambda: processes.tail("sleeper") == "hello", "the log", 5)


def test_starting_twice_keeps_the_first_process(processes):
    processes.start("sleeper", ["sleep", "60"])
    first = processes.running("sleeper")
    processes.start("sleeper", ["sleep", "60"])
    assert processes.running("sleeper") == first


def test_a_long_log_is_put_aside_when_the_process_starts_again(processes, monkeypatch):
    monkeypatch.setattr("dev.cluster.processes.LOG_BYTES", 10)
    processes.logs.mkdir()
    processes.log("sleeper").write_text("a line of an earlier life")
    processes.start("sleeper", ["sleep", "60"])
    assert processes.tail("sleeper") == ""
    assert (processes.logs / "sleeper.log.old").read_text() == "a line of an earlier life"


def test_stop_ends_the_process_and_forgets_it(processes):
    processes.start("sleeper", ["sleep", "60"])
    identity = processes.running("sleeper")
    assert processes.stop("sleeper") is True
    assert identify(identity.pid) is None
    assert processes.names() == []
    assert processes.stop("sleeper") is False


def test_a_process_that_ignores_sigterm_is_killed(processes):
    processes.start("stubborn", ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 60; done"])
    identity = processes.running("stubborn")
    wait_until(lambda: "ready" in processes.tail("stubborn"), "the trap", 5)
    processes.stop("stubborn", grace=0.1)
    assert identify(identity.pid) is None


@pytest.mark.parametrize("change", [{"start_time": 1}, {"boot_id": "another boot"}], ids=["reused pid", "other boot"])
def test_another_process_with_a_recorded_pid_is_left_alone(processes, change):
    with subprocess.Popen(["sleep", "60"]) as stranger:
        try:
            known = replace(identify(stranger.pid), **change)
            processes.pids.mkdir()
            (processes.pids / "etcd.json").write_text(json.dumps(vars(known)))
            assert processes.running("etcd") is None
            assert processes.stop("etcd") is False
            assert stranger.poll() is None
        finally:
            stranger.kill()


@pytest.mark.parametrize(
    "content", ["", "{", '{"pid": 1}', "[]"], ids=["empty", "cut off", "incomplete", "not an object"]
)
def test_a_damaged_pid_file_counts_as_not_running(processes, content):
    processes.pids.mkdir()
    (processes.pids / "etcd.json").write_text(content)
    assert processes.running("etcd") is None


def test_a_process_that_dies_while_starting_is_reported_with_its_last_words(processes):
    processes.start("broken", ["sh", "-c", "echo address already in use; sleep 0.2; exit 1"])
    with pytest.raises(RuntimeError, match="address already in use"):
        processes.wait_ready("broken", lambda: False, seconds=10)


def test_a_process_that_never_becomes_ready_is_reported_with_its_last_words(processes):
    processes.start("slow", ["sh", "-c", "echo still waiting; exec sleep 60"])
    wait_until(lambda: processes.tail("slow") == "still waiting", "the log", 5)
    with pytest.raises(RuntimeError, match=r"slow being ready did not happen within 0 s(.|\n)*still waiting"):
        processes.wait_ready("slow", lambda: False, seconds=0.2)


def test_identity_of_a_process_that_is_gone_is_none():
    with subprocess.Popen(["true"]) as child:
        child.wait()
    assert identify(child.pid) is None
    assert Identity(1, 2, "x") != Identity(1, 3, "x")
