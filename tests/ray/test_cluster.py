"""Many clips on a Ray cluster of two nodes: the same frames as in one process, whatever dies."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from imageio_ffmpeg import count_frames_and_secs

ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")
pytestmark = pytest.mark.timeout(300)

from async_decode.cluster import DecodeActor, Options, VAEPlace, decode_many  # noqa: E402
from async_decode.cluster.actors import _Pool  # noqa: E402
from async_decode.cluster.clips import Clip, clips_of  # noqa: E402
from async_decode.cluster.ray_cluster import connect  # noqa: E402
from async_decode.cluster.shared_folders import check_seen, everywhere, signed  # noqa: E402
from async_decode.demo import load_latent  # noqa: E402
from async_decode.errors import DecodeError  # noqa: E402
from tests.ray.deadly_vae import DeadlyVAE  # noqa: E402

ROOT = Path(__file__).parents[2]
CLIPS = 40
#: For workers of Ray: this code, and threads that do not spin.
VARIABLES = {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}


#: What a Ray that works does within a minute, whatever the engine does.
TRIAL = """
import ray
ray.init(address="local", num_cpus=1, object_store_memory=100 << 20, include_dashboard=False, log_to_driver=False)
assert ray.get(ray.remote(lambda: 7).remote(), timeout=60) == 7
ray.shutdown()
"""


@pytest.fixture(scope="module", autouse=True)
def _ray_works() -> None:
    """Some containers let Ray start too few processes, or none."""
    trial = subprocess.Popen(
        [sys.executable, "-c", TRIAL], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        _, said = trial.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip("Ray does not start on this machine: nothing within 120 s")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(trial.pid, signal.SIGKILL)
    if trial.returncode:
        pytest.skip(f"Ray does not start on this machine: {said.decode(errors='replace').strip()[-200:]}")


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty latents of the demo's VAE, of 1 to 4 latent frames."""
    folder = tmp_path_factory.mktemp("latents")
    whole = load_latent()
    for number in range(CLIPS):
        part = whole[:, :, number % 9 : number % 9 + 1 + number % 4, :6, :8].clone()
        torch.save(part + number / 100, folder / f"{number:02}.pt")
    return folder


@pytest.fixture(scope="module")
def alone(latents: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The hashes of one process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        outcome = decode_many(latents, str(tmp_path_factory.mktemp("alone") / "{name}.mkv"), options=Options(fps=8))
    finally:
        torch.set_num_threads(threads)
    return _hashes(outcome.lines)


class Nodes:
    """A cluster of two nodes of this machine, a processor each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        small = {"num_cpus": 1, "object_store_memory": 100 << 20}
        self.cluster = Cluster(initialize_head=True, head_node_args=small)
        self.second = self.cluster.add_node(**small)
        ray.init(address=self.cluster.address, runtime_env={"env_vars": VARIABLES}, log_to_driver=False)
        self.cluster.wait_for_nodes()

    def close(self) -> None:
        ray.shutdown()
        self.cluster.shutdown()


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    mark = f"async-decode-{uuid.uuid4().hex}"
    monkeypatch.setenv("ASYNC_DECODE_TEST", mark)
    found = Nodes()
    yield found
    found.close()
    # Whatever went wrong: the tests that follow have the machine to themselves.
    for process, _ in _marked(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _hashes(lines: list[dict[str, Any]]) -> dict[str, str]:
    return {Path(line["file"]).stem: line["hash"] for line in lines}


def _whole(folder: Path) -> list[str]:
    """The names of the videos that are whole; there is nothing else but the journal."""
    names = sorted(path.name for path in folder.iterdir())
    assert [name for name in names if not name.endswith((".mkv", ".jsonl"))] == []
    return [name.removesuffix(".mkv") for name in names if name.endswith(".mkv")]


def _journal(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "async-decode.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_two_nodes_give_the_hashes_of_one_process_though_an_actor_and_a_node_die(
    nodes: Nodes, latents: Path, alone: dict[str, str], tmp_path: Path
) -> None:
    done: list[str] = []
    killed: list[str] = []

    def tell(line: dict[str, Any]) -> None:
        if line["status"] == "done":
            done.append(line["worker"])
        if len(done) == 6 and not killed:
            # In the middle of a clip: each actor has one in hand by now.
            killed.append(done[-1])
            os.kill(int(done[-1].rpartition(":")[2]), signal.SIGKILL)
        if len(done) == 20 and len(killed) == 1:
            killed.append("node")
            nodes.cluster.remove_node(nodes.second, allow_graceful=False)

    outcome = decode_many(latents, str(tmp_path / "{name}.mkv"), options=Options(fps=8), ray="auto", on_line=tell)

    assert len(killed) == 2
    assert outcome.failed == []
    assert _hashes(outcome.lines) == alone
    assert _whole(tmp_path) == sorted(alone)
    # Each once: what an actor had in hand when it died is decoded again, and nothing else is.
    told = [line for line in _journal(tmp_path) if line["status"] == "done"]
    assert len(told) == len({line["file"] for line in told}) == CLIPS
    assert len(set(done)) >= 2


def test_a_clip_that_kills_its_actors_fails_alone(nodes: Nodes, latents: Path, tmp_path: Path) -> None:
    for name in ("00", "01", "02", "03", "04"):
        shutil.copy(latents / f"{name}.pt", tmp_path / f"{name}.pt")
    torch.save(torch.full((1, 16, 9, 6, 8), torch.nan), tmp_path / "poison.pt")
    began: list[str] = []

    outcome = decode_many(
        tmp_path,
        str(tmp_path / "out" / "{name}.mkv"),
        vae=DeadlyVAE(),
        options=Options(fps=8),
        ray="auto",
        on_line=lambda line: began.append(line["status"]),
    )

    assert [Path(line["latent"]).stem for line in outcome.failed] == ["poison"], outcome.failed
    assert outcome.failed[0]["status"] == "poison"
    assert "2 processes died" in outcome.failed[0]["error"]
    assert _whole(tmp_path / "out") == ["00", "01", "02", "03", "04"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for what is left in /proc")
@pytest.mark.parametrize("ends", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_of_the_head_leaves_no_process_and_the_next_run_decodes_only_what_is_missing(
    latents: Path, tmp_path: Path, ends: signal.Signals
) -> None:
    mark = f"async-decode-{uuid.uuid4().hex}"
    arguments = ["decode", str(latents), "--out", str(tmp_path / "{name}.mkv"), "--fps", "8", "--ray", "auto"]
    head = subprocess.Popen(
        [sys.executable, "-m", "async_decode", *arguments, "--workers", "2"],
        cwd=ROOT,
        env={**os.environ, **VARIABLES, "ASYNC_DECODE_TEST": mark},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    while len(list(tmp_path.glob("*.mkv"))) < 3:
        assert time.monotonic() < deadline and head.poll() is None, head.stderr and head.stderr.read()
        time.sleep(0.05)
    assert len(_marked(mark)) > 3

    head.send_signal(ends)
    _, said = head.communicate(timeout=120)

    assert head.returncode == 128 + ends, said
    assert b"cancelled" in said and b"Traceback" not in said and b"***" not in said
    # They were told to end; a moment later they have.
    deadline = time.monotonic() + 60
    while _marked(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _marked(mark) == []
    there = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.mkv") if "cut-short" not in path.name}
    assert 3 <= len(there) < CLIPS

    outcome = decode_many(latents, str(tmp_path / "{name}.mkv"), options=Options(fps=8))

    skipped = {Path(line["file"]) for line in outcome.lines if line["status"] == "skipped"}
    assert skipped == set(there)
    assert {path: path.stat().st_mtime_ns for path in there} == there
    assert len([path for path in tmp_path.glob("*.mkv") if "cut-short" not in path.name]) == CLIPS


@pytest.mark.skipif(sys.platform != "linux", reason="looks for what is left in /proc")
def test_a_head_that_is_killed_takes_its_workers_along_and_the_next_run_goes_on(latents: Path, tmp_path: Path) -> None:
    mark = f"async-decode-{uuid.uuid4().hex}"
    out = tmp_path / "out"
    # The longest, so that there is always one in hand.
    names = [f"{number:02}" for number in range(CLIPS) if number % 4 == 3]
    for name in names:
        shutil.copy(latents / f"{name}.pt", tmp_path / f"{name}.pt")
    arguments = ["decode", str(tmp_path / "*.pt"), "--out", str(out / "{name}.mkv"), "--fps", "8", "--ray", "auto"]
    head = subprocess.Popen(
        [sys.executable, "-m", "async_decode", *arguments, "--workers", "2"],
        cwd=ROOT,
        env={**os.environ, **VARIABLES, "ASYNC_DECODE_TEST": mark},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 200
        while len(list(out.glob("*.mkv"))) < 2:
            assert time.monotonic() < deadline and head.poll() is None
            time.sleep(0.02)
        assert _workers(mark)

        head.kill()
        head.wait()

        # Ray ends them when their driver is gone; two processes of Ray's own may stay a while.
        deadline = time.monotonic() + 60
        while _workers(mark):
            assert time.monotonic() < deadline, _workers(mark)
            time.sleep(0.05)
    finally:
        for process, _ in _marked(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    there = {path: path.stat().st_mtime_ns for path in out.glob("*.mkv")}
    assert 2 <= len(there) < len(names)
    assert {path.name: count_frames_and_secs(str(path))[0] for path in there} == {path.name: 13 for path in there}

    outcome = decode_many(str(tmp_path / "*.pt"), str(out / "{name}.mkv"), options=Options(fps=8))

    assert {Path(line["file"]) for line in outcome.lines if line["status"] == "skipped"} == set(there)
    assert {path: path.stat().st_mtime_ns for path in there} == there
    # Nor is anything left of what was in hand.
    assert _whole(out) == names


def _workers(mark: str) -> list[str]:
    """What decodes and encodes there: our actors, by the names that Ray gives them, and ffmpeg."""
    return [command for _, command in _marked(mark) if re.search(r"ray::\w*decode|ffmpeg", command, re.IGNORECASE)]


def _marked(mark: str) -> list[tuple[int, str]]:
    """The processes that were started with ``mark`` in their environment: number and command."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                if mark.encode() in (process / "environ").read_bytes():
                    command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found.append((int(process.name), command))
    return found


def test_actor_takes_batches_of_ray_data(latents: Path, alone: dict[str, str], tmp_path: Path) -> None:
    options = Options(fps=8, overwrite=True)
    actor = DecodeActor(VAEPlace(), to=str(tmp_path / "{name}.mkv"), options=options, device="cpu")
    # Ray tries a batch again whose first clip was whole when the actor died.
    assert actor({"latent": [str(latents / "00.pt")]})["status"] == ["done"]

    told = actor({"latent": [str(latents / "00.pt"), str(latents / "01.pt")]})

    assert told["status"] == ["done", "done"]
    assert told["frames"] == [1, 5]
    assert _whole(tmp_path) == ["00", "01"]


class _Answers:
    """Stands for Ray where what became of each call is known: an answer, or the error of an actor that died."""

    exceptions = ray.exceptions

    def __init__(self, became: dict[str, Any]) -> None:
        self.became = became

    def wait(self, calls: list[str], num_returns: int = 1, **_: Any) -> tuple[list[str], list[str]]:
        # The call that waited is seen first, as happens.
        return calls[-num_returns:], calls[:-num_returns]

    def get(self, call: str) -> Any:
        if isinstance(self.became[call], Exception):
            raise self.became[call]
        return self.became[call]


@pytest.mark.parametrize(
    ("first", "lines", "deaths", "waiting"),
    [
        ("died", [], {"a": 1, "b": 0}, ["a", "b"]),
        # It had done the first one, and nobody had looked yet.
        ("done", [{"clip": "a"}], {"b": 1}, ["b"]),
    ],
)
def test_only_the_clip_in_hand_is_to_blame_for_a_death(
    first: str, lines: list[dict[str, Any]], deaths: dict[str, int], waiting: list[str]
) -> None:
    died = ray.exceptions.RayActorError()
    pool = _Pool.__new__(_Pool)
    pool._ray = _Answers({"call a": died if first == "died" else {"clip": "a"}, "call b": died})
    a, b = (Clip(name, f"{name}.pt", f"{name}.mkv") for name in "ab")
    pool._asked, pool._deaths = {"actor": {"call a": a, "call b": b}}, {}
    asked: list[str] = []
    pool._ask = asked.append  # type: ignore[method-assign]
    left: list[Clip] = []

    told = list(pool._died("actor", died, left))

    assert told == lines and pool._deaths == deaths
    assert [clip.name for clip in left] == waiting
    assert asked == ["actor"] and pool._asked == {"actor": {}}


class _OneDies(_Answers):
    """Ray whose second actor dies when the first has nothing left to do, and never comes up again."""

    def __init__(self) -> None:
        super().__init__({})
        self.calls = 0

    def call(self, actor: str, name: str) -> str:
        self.calls += 1
        call = f"{self.calls} {actor} {name}"
        self.became[call] = {"clip": name}
        return call

    def wait(self, calls: list[str], num_returns: int = 1, **_: Any) -> tuple[list[str], list[str]]:
        able = sorted(
            (call for call in calls if "again" not in call), key=lambda call: ("ready" not in call, "second" in call)
        )
        assert able, f"there are {calls} only, which nobody will answer"
        if "second" in able[0] and "ready" not in able[0]:
            self.became[able[0]] = ray.exceptions.RayActorError()
        return able[:1], [call for call in calls if call != able[0]]


def test_clips_of_an_actor_that_died_go_to_one_that_has_nothing_to_do() -> None:
    told_of = _OneDies()
    pool = _Pool.__new__(_Pool)
    pool._ray, pool._deaths = told_of, {}
    pool._asked = {"first": {}, "second": {}}
    pool._actors = list(pool._asked)
    asked: list[str] = []

    def ask(actor: str) -> None:
        pool._asked[actor] = {told_of.call(actor, "ready again" if actor in asked else "ready"): None}
        asked.append(actor)

    def hand(actor: str, clip: Clip, _options: Options) -> None:
        pool._asked[actor][told_of.call(actor, clip.name)] = clip

    pool._ask, pool._hand = ask, hand  # type: ignore[method-assign]
    clips = [Clip(name, f"{name}.pt", f"{name}.mkv") for name in "abcd"]

    told = [line["clip"] for line in pool.decode(clips, lambda _clip: Options())]

    assert sorted(told) == ["a", "b", "c", "d"]
    assert asked == ["first", "second", "second"]


class _AnswersGetLost(_Answers):
    """Ray, one clip of which kills its actor, so soon that the answer of the clip before is lost with it."""

    def wait(self, calls: list[str], num_returns: int = 1, **_: Any) -> tuple[list[str], list[str]]:
        for call in calls:
            deadly = any("poison" in other for other in calls)
            answer = {"clip": call.partition(" ")[0], "status": "done"}
            self.became.setdefault(call, ray.exceptions.RayActorError() if deadly else answer)
        return calls[:num_returns], calls[num_returns:]


def test_a_clip_whose_answer_was_lost_is_not_taken_for_the_one_that_kills() -> None:
    pool = _Pool.__new__(_Pool)
    pool._ray, pool._deaths, pool._asked = _AnswersGetLost({}), {}, {"actor": {}}
    pool._actors = list(pool._asked)
    number = itertools.count()

    def ask(actor: str, clip: Clip | None = None, _options: Options | None = None) -> None:
        pool._asked[actor][f"{clip.name if clip else 'ready'} {next(number)}"] = clip

    pool._ask = pool._hand = ask  # type: ignore[method-assign]
    clips = [Clip(name, f"{name}.pt", f"{name}.mkv") for name in ("a", "poison", "b")]

    told = {line["clip"]: line["status"] for line in pool.decode(clips, lambda _clip: Options())}

    assert told == {"a": "done", "b": "done", "poison": "poison"}


def test_longest_first_and_names_by_latent() -> None:
    clips = clips_of(["x/b.pt", "y/a.pt"], "out/{folder}/{name}-{number}.mp4")

    assert [clip.to for clip in clips] == ["out/x/b-00001.mp4", "out/y/a-00002.mp4"]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("autoo", "expected 'auto', or the address of a cluster such as 10.0.0.1:6379, got 'autoo'"),
        ("10.0.0.1", "expected 'auto', or the address of a cluster such as 10.0.0.1:6379, got '10.0.0.1'"),
        ("127.0.0.1:{port}", "cannot be reached: Connection refused; say the address that 'ray start --head' has told"),
        ("ray://127.0.0.1:{port}", "cannot be reached: Connection refused"),
        ("head..node:{port}", "cannot be reached: "),
    ],
)
def test_an_address_at_which_there_is_no_cluster_is_named_at_once(
    address: str, words: str, latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray tries for minutes"))
    # Nobody listens at a port that is bound.
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = address.format(port=bound.getsockname()[1])
        with pytest.raises(DecodeError, match=re.escape(words)):
            decode_many(latents, str(tmp_path / "{name}.mkv"), options=Options(fps=8), ray=address)


def test_a_cluster_that_asks_for_its_token_says_so(
    latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(**_: Any) -> None:
        # As Ray 2.60 raises it: the reason is in the cause only.
        raise ConnectionError("Failed to connect to Ray cluster at HOST") from RuntimeError(
            "Failed to connect to GCS. RPC error: InvalidAuthToken: Authentication token is missing"
        )

    monkeypatch.setattr(ray, "init", refuses)
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        with pytest.raises(DecodeError, match="cannot be reached: it asks for its token; set RAY_AUTH_MODE=token here"):
            decode_many(latents, str(tmp_path / "{name}.mkv"), options=Options(fps=8), ray=address)


def test_a_machine_that_does_not_see_the_folders_takes_no_clip(latents: Path, tmp_path: Path) -> None:
    clip = everywhere(clips_of([str(latents / "00.pt")], str(tmp_path / "clips" / "{name}.mkv"))[0])

    with signed([clip]) as sees:
        check_seen(sees)
        (sign,) = (tmp_path / "clips").iterdir()
        assert {str(sign), clip.latent} == set(sees)
        sign.unlink()
        with pytest.raises(DecodeError, match=rf"{socket.gethostname()} does not see the folder .*clips that the run"):
            DecodeActor(sees=sees)
        with pytest.raises(DecodeError, match=r"does not see the folder /elsewhere with 00\.pt that the run"):
            DecodeActor(sees=["/elsewhere/00.pt"])

    assert list((tmp_path / "clips").iterdir()) == []


def test_an_actor_that_cannot_be_started_is_told_and_the_others_decode() -> None:
    told_of = _OneDies()
    pool = _Pool.__new__(_Pool)
    pool._ray, pool._deaths, pool._on_loss = told_of, {}, (losses := []).append
    pool._asked = {"first": {}, "second": {}}
    pool._actors = list(pool._asked)

    def ask(actor: str) -> None:
        call = told_of.call(actor, "ready")
        pool._asked[actor] = {call: None}
        if actor == "second":
            told_of.became[call] = ray.exceptions.RayActorError()

    def hand(actor: str, clip: Clip, _options: Options) -> None:
        pool._asked[actor][told_of.call(actor, clip.name)] = clip

    pool._ask, pool._hand = ask, hand  # type: ignore[method-assign]
    clips = [Clip(name, f"{name}.pt", f"{name}.mkv") for name in "ab"]

    assert sorted(line["clip"] for line in pool.decode(clips, lambda _clip: Options())) == ["a", "b"]
    assert len(losses) == 1 and losses[0].startswith("1 of 2 processes cannot be started: ")


def test_places_are_those_of_the_process_that_was_started(
    nodes: Nodes, latents: Path, alone: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machines' own processes stand in other folders."""
    shutil.copytree(latents, tmp_path / "in")
    monkeypatch.chdir(tmp_path)

    outcome = decode_many(
        [f"in/{number:02}.pt" for number in range(4)], "out/{name}.mkv", options=Options(fps=8), ray="auto"
    )

    assert [(line["status"], line["latent"], line["file"]) for line in outcome.lines] == [
        ("done", f"in/{number:02}.pt", f"out/{number:02}.mkv") for number in range(4)
    ]
    assert _hashes(outcome.lines).items() <= alone.items()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(f"{n:02}.mkv" for n in range(4)),
        "async-decode.jsonl",
    }
    again = decode_many("in/00.pt", "out/{name}.mkv", options=Options(fps=8))
    assert [line["status"] for line in again.lines] == ["skipped"]


@pytest.mark.parametrize("when", ["while it connects", "afterwards"])
def test_sigterm_is_the_programs_own_though_ray_takes_it(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended(BaseException):
        pass

    def init(**_: Any) -> None:
        # As Ray does it.
        signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(number))
        if when == "while it connects":
            os.kill(os.getpid(), signal.SIGTERM)

    def ended(_number: int, _frame: Any) -> None:
        raise Ended

    monkeypatch.setattr(ray, "init", init)
    before = signal.signal(signal.SIGTERM, ended)
    try:
        with pytest.raises(Ended):
            connect(ray, "auto")
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
