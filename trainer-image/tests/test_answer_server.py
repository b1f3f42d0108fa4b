"""A server that writes a run's answers, as a small one stands for it here: it gets each step's adapter, and may die."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import tiny
from in_process import train_here

from hone.contract.objectives import Objective
from hone.contract.runconfig import AnswerServer as Configured
from hone.contract.settings import GenerationEngine
from hone_trainer.objectives import answer_server
from hone_trainer.objectives.answer_server import Answer, AnswerServer, Sampling
from hone_trainer.protocol.planfile import require_plan, save_plan
from hone_trainer.protocol.runconfig import digest_of
from hone_trainer.protocol.verdicts import from_exception

SAMPLING = Sampling(max_tokens=3, temperature=1.0, stops=(2,))


class Handler(BaseHTTPRequestHandler):
    """Answers each request with the first token of its prompt, and one that follows from its seed."""

    def log_message(self, *_: object) -> None:
        """Nothing: the log of a test is for what the client says."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Server = self.server  # type: ignore[assignment]
        code, reply = server.answer(self.path, body)
        if code == 0:
            self.connection.close()
            return
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(reply).encode())


class Server(ThreadingHTTPServer):
    """Stands for vLLM: knows adapters by name, until it dies."""

    daemon_threads = True
    request_queue_size = 128  # Of five, connections are reset when many are opened at once on a busy machine.

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.adapters: dict[str, str] = {}
        self.loads: list[str] = []
        self.answered: list[dict] = []
        self.dies_after: int | None = None
        self.gone_for = 0
        self.dies_with = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, path: str, body: dict) -> tuple[int, object]:
        """A code, 0 for a connection that breaks, and what is replied."""
        with self.lock:
            if self.gone_for:
                self.gone_for -= 1
                return self.dies_with, {"error": {"message": "EngineCore encountered an issue"}}
            if path == "/v1/load_lora_adapter":
                self.adapters[body["lora_name"]] = body["lora_path"]
                self.loads.append(body["lora_name"])
                return 200, "Success"
            if path == "/v1/unload_lora_adapter":
                return (200, "Success") if self.adapters.pop(body["lora_name"], None) else (404, "unknown")
            if body["model"] not in self.adapters:
                return 404, "unknown model"
            if body["max_tokens"] > 999:
                return 400, {"error": "the prompt and its answer are too long"}
            if self.dies_after is not None and len(self.answered) >= self.dies_after:
                self.dies_after, self.gone_for = None, 4
                self.adapters.clear()
                return self.dies_with, None
            self.answered.append(body)
            ids = [body["prompt"][0], 3 + body["seed"] % 19, 2]
            return 200, {"choices": [{"token_ids": ids, "logprobs": {"token_logprobs": [-1.0, -2.0, -0.5]}}]}


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def client(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AnswerServer:
    monkeypatch.setattr(answer_server, "_POLL_SECONDS", 0.01)
    hand_over(tmp_path, 0, 4)
    return AnswerServer(server.url, tmp_path, wait_seconds=30)


def hand_over(directory: Path, *steps: int) -> None:
    """Adapters of these steps, as `write_adapter` names them."""
    for step in steps:
        (directory / f"step-{step}-0a1b").mkdir()


PROMPTS = [[number, 5, 6] for number in range(3, 19)]


def test_each_prompt_gets_an_answer_of_its_own_with_probabilities(client: AnswerServer, server: Server) -> None:
    client.load(0)
    answers = client.answer([[7, 5], [7, 5], [8]], SAMPLING, "seed")
    assert [answer.ids[0] for answer in answers] == [7, 7, 8]
    assert answers[0].log_probabilities == [-1.0, -2.0, -0.5]
    assert len({body["seed"] for body in server.answered}) == 3
    assert client.answer([[7, 5], [7, 5], [8]], SAMPLING, "seed") == answers
    assert client.answer([[7, 5], [7, 5], [8]], SAMPLING, "another") != answers
    # What is not said would come from the model's generation_config.json.
    drawn = {name: server.answered[0][name] for name in ("top_p", "top_k", "min_p", "repetition_penalty")}
    assert drawn == {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}


@pytest.mark.parametrize("code", [0, 500], ids=["its connections break", "its engine ends first"])
def test_a_server_that_dies_in_a_step_gets_the_adapter_again_and_what_is_unanswered(
    client: AnswerServer, server: Server, code: int
) -> None:
    server.dies_with = code
    client.load(4)
    whole: list[Answer] = client.answer(PROMPTS, SAMPLING, "seed")
    server.answered.clear()
    server.dies_after = 5
    assert client.answer(PROMPTS, SAMPLING, "seed") == whole
    assert server.loads == ["step-4-0a1b"] * 2
    assert len(server.answered) == len(PROMPTS), "what was answered is not asked again"


def test_answers_and_waiting_are_signs_of_life(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The watchdog would end a rank that shows none while a large model is loaded again.
    monkeypatch.setattr(answer_server, "_POLL_SECONDS", 0.01)
    moves: list[int] = []
    hand_over(tmp_path, 0)
    client = AnswerServer(server.url, tmp_path, wait_seconds=30, moves=lambda: moves.append(len(server.answered)))
    server.gone_for = 3
    client.load(0)
    assert moves == [0, 0, 0]
    client.answer(PROMPTS, SAMPLING, "seed")
    assert len(moves) == 3 + len(PROMPTS)


def test_an_adapter_never_has_the_path_of_another_one(tmp_path: Path) -> None:
    class Model:
        def save_pretrained(self, path: Path) -> None:
            path.mkdir()

    client = AnswerServer("http://127.0.0.1:1", tmp_path, wait_seconds=0)
    names = []
    for step in (0, 1, 1):
        client.write_adapter(Model(), step)  # type: ignore[arg-type]
        (written,) = tmp_path.iterdir()
        names.append(written.name)
    assert [name.rpartition("-")[0] for name in names] == ["step-0", "step-1", "step-1"]
    assert len({*names}) == 3
    (tmp_path / "partial").mkdir()  # as a rank that was killed leaves it
    client.write_adapter(Model(), 2)  # type: ignore[arg-type]
    assert len([*tmp_path.iterdir()]) == 1


def test_a_server_that_stays_gone_ends_the_attempt_as_a_lost_connection(
    client: AnswerServer, server: Server, tmp_path: Path
) -> None:
    client.load(0)
    server.gone_for = 10**9
    hopeless = AnswerServer(server.url, tmp_path, wait_seconds=0)
    with pytest.raises(ConnectionError, match="is not up after 0 s; `kubectl logs`") as error:
        hopeless.load(0)
    assert from_exception(error.value, 0, 0, 0).failure_class == "Communication"


def test_what_the_server_refuses_is_told_in_its_words(client: AnswerServer) -> None:
    client.load(0)
    with pytest.raises(RuntimeError, match="the prompt and its answer are too long"):
        client.answer([[1]], Sampling(max_tokens=1000, temperature=1.0, stops=()), "seed")


@pytest.mark.train
@pytest.mark.parametrize("objective", [Objective.GRPO, Objective.DISTILLATION])
def test_a_run_learns_from_the_servers_answers(
    objective: Objective, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A trainer of TRL takes a server for its own, and its answers' probabilities into account, only where it can.
    seen: dict[str, list] = {"ratio": [], "server": []}
    configured = with_server(tmp_path, objective, server)
    with tiny.only_rank():
        watch(monkeypatch, objective, seen)
        train_here(tmp_path, monkeypatch)
    assert [name.rpartition("-")[0] for name in server.loads] == ["step-0", "step-1", "step-2"]
    assert [path.name for path in Path(configured.adapters).iterdir()] == server.loads[-1:]
    assert len(server.answered) == 3 * 8
    assert len({body["seed"] for body in server.answered}) == 3 * 8
    if objective is Objective.GRPO:
        assert len(seen["ratio"]) == 3
        assert all((ratio != 1).any() for ratio in seen["ratio"])


def with_server(
    root: Path,
    objective: Objective,
    server: Server,
    engine: GenerationEngine = GenerationEngine.VLLM,
    **options: object,
) -> Configured:
    """A run under `root` whose answers the server writes, if the plan has that engine."""
    settings = {"micro_batch": 8, "dropout": 0.0, "steps": 3, "every": 3, **options}
    config = tiny.make_run(root, objective=objective, **settings)
    planned = require_plan(config)
    (root / "adapters").mkdir()
    configured = Configured(url=server.url, adapters=str(root / "adapters"))
    config = config.model_copy(update={"answer_server": configured})
    (root / "run.json").write_text(config.to_json())
    plan = planned.plan.model_copy(update={"generation_engine": engine})
    save_plan(config, planned.model_copy(update={"plan": plan, "run_config_digest": digest_of(config)}))
    return configured


def watch(monkeypatch: pytest.MonkeyPatch, objective: Objective, seen: dict[str, list]) -> None:
    """Note the ratios of probabilities that GRPO's loss is corrected with."""
    if objective is not Objective.GRPO:
        return
    from trl import GRPOTrainer

    original: Callable = GRPOTrainer._generate_and_score_completions

    def noted(self: object, inputs: list) -> dict:
        output = original(self, inputs)
        seen["ratio"].append(output["importance_sampling_ratio"])
        return output

    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", noted)


@pytest.mark.train
def test_without_the_plans_word_the_model_answers_itself(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_server(tmp_path, Objective.RLOO, server, GenerationEngine.TRAINER)
    with tiny.only_rank():
        train_here(tmp_path, monkeypatch)
    assert server.loads == server.answered == []
