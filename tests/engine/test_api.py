"""The front door: one call from latents to files, frames or a stream, and what it says to nonsense."""

from __future__ import annotations

import functools
import gc
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import async_decode
from async_decode import DecodeError, SinkError
from async_decode.demo import load_latent, load_vae
from async_decode.sinks import PngEncoder, TensorSink, VideoSink
from async_decode.sinks.ffmpeg import find_ffmpeg
from async_decode.sinks.files import OutputNames
from async_decode.sinks.given_names import GivenNames
from async_decode.sinks.owners import machine_name
from tests.engine.toy import CollectSink, ToyVAE, stock_bytes, stock_frames, toy_latent

ROOT = Path(__file__).parents[2]


def _toy(latents: int = 4) -> tuple[Any, torch.Tensor, torch.Tensor]:
    vae, latent = ToyVAE(), toy_latent(latents)
    return vae.video_decoder(), latent, stock_frames(vae, latent)


def _frames_of(path: Path) -> int:
    import subprocess

    listed = subprocess.run(
        [find_ffmpeg(), "-i", str(path), "-map", "0:v", "-f", "framehash", "-"], capture_output=True, check=True
    )
    return sum(1 for line in listed.stdout.decode().splitlines() if line and not line.startswith("#"))


def test_without_a_target_the_frames_are_a_tensor() -> None:
    vae, latent, expected = _toy()

    result = async_decode.decode(vae, latent)

    assert torch.equal(result.frames, expected)
    assert result.path is None and result.files == []
    assert result.report.frames == 13


def test_a_path_is_a_video_under_this_name(tmp_path: Path) -> None:
    vae, latent, _ = _toy()

    result = async_decode.decode(vae, latent, tmp_path / "new" / "clip.mp4", fps=16)

    assert result.path == tmp_path / "new" / "clip.mp4"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["clip.mp4"]
    assert _frames_of(result.path) == 13
    with pytest.raises(SinkError, match="TensorSink"):
        _ = result.frames


@pytest.mark.parametrize(
    "pattern, first", [("*.png", "00001.png"), ("shot_*.png", "shot_00001.png"), ("f%03d.png", "f001.png")]
)
def test_a_pattern_is_images(tmp_path: Path, pattern: str, first: str) -> None:
    vae, latent, expected = _toy()

    result = async_decode.decode(vae, latent, tmp_path / pattern, compression=1)

    assert result.files[0].name == first
    assert sorted(tmp_path.iterdir()) == result.files and len(result.files) == 13
    saved = np.stack([np.asarray(Image.open(file)) for file in result.files])
    assert np.array_equal(saved, stock_bytes(expected))


def test_several_targets_at_once(tmp_path: Path) -> None:
    vae, latent, expected = _toy()
    own = CollectSink()

    result = async_decode.decode(vae, latent, [tmp_path / "a.mkv", str(tmp_path / "b.webm"), None, own], fps=16)

    assert result.files == [tmp_path / "a.mkv", tmp_path / "b.webm"] and result.path == tmp_path / "a.mkv"
    assert torch.equal(result.frames, expected)
    assert np.array_equal(own.frames, expected.numpy())


def test_of_several_targets_each_takes_the_options_that_it_has_a_use_for(tmp_path: Path) -> None:
    vae, latent, _ = _toy(1)
    targets = [tmp_path / "a.mp4", tmp_path / "b.mkv", tmp_path / "*.exr"]

    result = async_decode.decode(vae, latent, targets, fps=16, quality=30, compression=1)

    assert [path.name for path in result.files] == ["a.mp4", "b.mkv", "00001.exr"]
    with pytest.raises(SinkError, match="quality"):
        async_decode.decode(vae, latent, [tmp_path / "c.mkv", tmp_path / "c*.exr"], fps=16, quality=30)
    assert len(list(tmp_path.iterdir())) == 3


def test_what_is_there_is_replaced_only_when_asked_for(tmp_path: Path) -> None:
    vae, latent, _ = _toy()
    clip, frames = tmp_path / "clip.mp4", tmp_path / "frames" / "*.png"
    for target in (clip, frames):
        async_decode.decode(vae, latent, target, **({"fps": 16} if target == clip else {}))
        with pytest.raises(SinkError, match="overwrite=True"):
            async_decode.decode(vae, latent, target, **({"fps": 16} if target == clip else {}))

    async_decode.decode(vae, latent[:, :, :2], clip, fps=16, overwrite=True)
    shorter = async_decode.decode(vae, latent[:, :, :2], frames, overwrite=True)

    assert _frames_of(clip) == 5
    # None of the longer clip's frames stays behind.
    assert sorted((tmp_path / "frames").iterdir()) == shorter.files and len(shorter.files) == 5


def test_a_failed_run_leaves_the_old_file_as_it_was(tmp_path: Path) -> None:
    vae, latent, _ = _toy(9)
    clip = tmp_path / "clip.mp4"
    async_decode.decode(vae, latent, clip, fps=16)
    before = clip.read_bytes()

    def fail(done: int, _all: int | None) -> None:
        if done > 8:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async_decode.decode(vae, latent, clip, fps=16, overwrite=True, on_progress=fail)

    assert clip.read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def test_what_a_killed_process_has_left_goes_with_the_next_try(tmp_path: Path) -> None:
    vae, latent, _ = _toy()
    dead = tmp_path / f"clip.mp4.{machine_name()}-4194303-0123abcd.part"
    elsewhere = tmp_path / "clip.mp4.other-4194303-0123abcd.part"
    neighbour = tmp_path / f"clip.mp4.mp4.{machine_name()}-4194303-0123abcd.part"
    for path in (dead, elsewhere, neighbour):
        path.write_bytes(b"x")

    async_decode.decode(vae, latent, tmp_path / "clip.mp4", fps=16)

    assert not dead.exists()
    assert elsewhere.exists() and neighbour.exists()


def test_what_a_killed_process_has_left_of_frames_and_of_a_trial_goes_too(tmp_path: Path) -> None:
    vae, latent, _ = _toy()
    own = f"{machine_name()}-4194303-0123abcd"
    dead = [
        tmp_path / name for name in (f"f_00001.png.{own}.part", f".async-decode.{own}.part", f".async-decode.{own}")
    ]
    other = tmp_path / f"g_00001.png.{own}.part"
    for path in (*dead, other):
        path.write_bytes(b"x")

    async_decode.decode(vae, latent, tmp_path / "f_*.png")

    assert [path.name for path in dead if path.exists()] == []
    assert other.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_process_that_was_killed_and_not_yet_waited_for_is_dead(tmp_path: Path) -> None:
    vae, latent, _ = _toy()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        left = tmp_path / f"clip.mp4.{machine_name()}-{process.pid}-0123abcd.part"
        left.write_bytes(b"x")
        async_decode.decode(vae, latent, tmp_path / "clip.mp4", fps=16)
        lived = left.exists()
        process.kill()
        stat = Path(f"/proc/{process.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        async_decode.decode(vae, latent, tmp_path / "clip.mp4", fps=16, overwrite=True)

        assert lived and not left.exists()


def test_a_folder_that_takes_no_file_is_told_with_the_name_that_was_given(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SinkError, match=r"file/clip\.png could not be written"):
        GivenNames(tmp_path / "file" / "clip.png").probe(".png")


def test_two_at_once_never_mix(tmp_path: Path) -> None:
    """Whoever is later finds the name taken, and keeps what it has made."""
    first, second = (GivenNames(tmp_path / "clip.png").reserve(".png") for _ in range(2))
    first.part.write_bytes(b"first")
    second.part.write_bytes(b"second")

    assert first.publish().read_bytes() == b"first"
    with pytest.raises(SinkError, match="what was made stays as"):
        second.publish()
    second.discard()

    assert second.part.read_bytes() == b"second"


def test_progress_ends_at_all_of_it() -> None:
    vae, latent, _ = _toy()
    told: list[tuple[int, int | None]] = []

    async_decode.decode(vae, latent, on_progress=lambda done, total: told.append((done, total)))

    assert told[-1] == (13, 13)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


@pytest.mark.parametrize(
    "to, options, words",
    [
        ("clip.mp4", {}, "fps=24"),
        ("clip.mp4", {"fps": 0}, "frame rate"),
        ("clip.mp4", {"fps": 16, "sound": "sound.wav"}, "sound: expected a Sound, got str; say sound=read_sound"),
        ("clip.mp4", {"fps": 16, "metadata": {"seed": 1}}, "metadata: expected text by key, got 'seed': 1"),
        ("*.png", {"metadata": {1: "seed"}}, "metadata: expected text by key, got 1: 'seed'"),
        ("clip.mp4", {"fps": 16, "compression": 3}, "compression"),
        ("clip.mp4", {"fps": 16, "quality": 99}, "crf must be"),
        ("clip.mp4", {"fps": 16, "format": "vp9"}, r"\.webm"),
        ("clip.mp4", {"fps": 16, "format": "divx"}, "h264"),
        ("clip.txt", {"fps": 16}, "ending"),
        ("clip.png", {}, r"frames/\*\.png"),
        ("*.png", {"fps": 16}, "fps"),
        ("*.png", {"quality": 3}, "no such choice"),
        ("*.doc", {}, "png"),
        ("*_*.png", {}, "one place"),
        ("*.png", {"compression": 99}, "from 0 to 9"),
        ("*.jpg", {"quality": float("nan")}, "from 1 to 100, got nan"),
        ("clip.mkv", {"fps": 16, "quality": 20}, "ffv1 has no such choice"),
        ("*.png", {"compression": 4.5}, "compression: expected a whole number, got 4.5"),
        ("*.png", {"writers": 1.5}, "writers: expected a whole number, got 1.5"),
        ("clip.mp4", {"fps": 16, "repeats": 1.5}, "repeats: expected a whole number, got 1.5"),
        ("clip.mp4", {"fps": 16, "quality": "18"}, "quality: expected a number, got '18'"),
        ("clip.mp4", {"fps": 16, "metadata": "seed"}, "metadata: expected text by key, such as .* got 'seed'"),
        ("clip.mp4", {"fps": 16, "on_progress": 5}, "on_progress: expected a function"),
        ("x" * 300 + ".mp4", {"fps": 16}, "choose a shorter file name"),
        ("a\0b.mp4", {"fps": 16}, "holds a NUL character"),
        (["s3://bucket/clip.mp4"], {"fps": 16}, "this is a place in a store"),
        (["s3://bucket/*.png"], {}, "this is a place in a store"),
        ([], {}, "empty list"),
        ([3], {}, "int"),
        (None, {"fps": 16}, "no video"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused_before_anything_is_decoded(
    tmp_path: Path, to: Any, options: dict[str, Any], words: str
) -> None:
    vae, toy = ToyVAE(), toy_latent(3)

    with pytest.raises((SinkError, DecodeError), match=words):
        async_decode.decode(vae.video_decoder(), toy, str(tmp_path / to) if isinstance(to, str) else to, **options)

    assert vae.steps == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name, first", [("clip.mkv", "clip.mkv"), ("frames/*.png", "frames/00001.png")])
def test_a_tilde_is_the_home_folder(name: str, first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    vae, latent, _ = _toy()

    result = async_decode.decode(vae, latent, f"~/{name}", fps=16 if "mkv" in name else None)

    assert result.files[0] == tmp_path / "home" / first and result.files[0].is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize("again", ["clip.mkv", "new/../clip.mkv"])
def test_one_file_twice_is_refused_before_anything_is_decoded(again: str, tmp_path: Path) -> None:
    vae = ToyVAE()

    with pytest.raises(SinkError, match="are one file; give each a name of its own"):
        async_decode.decode(vae.video_decoder(), toy_latent(4), [tmp_path / "clip.mkv", f"{tmp_path}/{again}"], fps=8)

    assert vae.steps == 0
    assert not list(tmp_path.iterdir())


def test_a_target_of_another_kind_is_refused() -> None:
    vae, latent, _ = _toy()

    with pytest.raises(SinkError, match="to: expected a path, a sink or several of them, got int"):
        async_decode.decode(vae, latent, 5)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["clip.mkv", "*.png"])
@pytest.mark.parametrize(
    ("folder", "words"), [("file", "a file is where a folder should be"), ("shut/new", "get the right to write there")]
)
def test_a_folder_that_takes_no_files_is_refused_before_anything_is_decoded(
    name: str, folder: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "shut").mkdir()
    # Whoever runs the tests may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path).name != "shut")
    vae = ToyVAE()

    with pytest.raises(SinkError, match=words) as told:
        async_decode.decode(
            vae.video_decoder(), toy_latent(1), tmp_path / folder / name, fps=16 if "mkv" in name else None
        )

    assert str(tmp_path / folder / name) in str(told.value)
    assert vae.steps == 0


@pytest.mark.parametrize(
    "latents, options, words",
    [
        (torch.zeros(1, 4, 3, 4), {}, "N, C, T, H, W"),
        (torch.zeros(1, 4, 0, 4, 4), {}, "something in it"),
        ("latents", {}, "str"),
        (torch.zeros(1, 4, 1, 4, 4), {"normalized": True}, "VAEs of Diffusers"),
        (
            torch.zeros(1, 4, 1, 4, 4),
            {"finish": "clamp"},
            "finish: expected 'diffusers', a Finish or None, got 'clamp'",
        ),
        (torch.zeros(1, 4, 1, 4, 4), {"finish": "diffusers"}, "VAEs of Diffusers"),
    ],
)
def test_latents_that_make_no_sense_are_refused(latents: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(DecodeError, match=words):
        async_decode.decode(ToyVAE().video_decoder(), latents, **options)


def test_what_is_no_vae_is_refused() -> None:
    with pytest.raises(DecodeError, match=r"pipe\.vae"):
        async_decode.decode(ToyVAE(), toy_latent(1))


def test_sinks_are_taken_as_they_are(tmp_path: Path) -> None:
    vae, latent, expected = _toy()
    video = VideoSink(GivenNames(tmp_path / "clip.mp4"), fps=16)

    result = async_decode.decode(vae, latent, [video, TensorSink()])

    assert result.path == tmp_path / "clip.mp4"
    assert torch.equal(result.frames, expected)
    assert PngEncoder.extension == ".png"


class TestStream:
    def test_hands_out_all_frames_in_order(self) -> None:
        vae, latent, expected = _toy(9)

        stream = async_decode.stream(vae, latent, chunk_size=3)
        chunks = list(stream)

        assert torch.equal(torch.cat(chunks), expected)
        assert {len(chunk) for chunk in chunks} == {3}
        assert stream.report.outcome == "completed" and stream.frames == 33

    def test_decodes_no_further_than_its_ring(self) -> None:
        vae, latent = ToyVAE(), toy_latent(40)
        before = threading.active_count()
        with async_decode.stream(vae.video_decoder(), latent, chunk_size=4, buffer_depth=2) as stream:
            chunks = iter(stream)
            first = next(chunks)
            kept = first.clone()
            for _ in range(3):
                next(chunks)

            # Four chunks were taken; two wait, and one more piece was made that had to wait for a slot.
            assert vae.steps <= 8
            # A chunk has memory of its own.
            assert torch.equal(first, kept)
        assert threading.active_count() == before
        assert stream.report.outcome == "cancelled"

    def test_leaving_the_loop_ends_the_decode(self) -> None:
        vae, latent = ToyVAE(), toy_latent(40)
        before = threading.active_count()

        for _ in async_decode.stream(vae.video_decoder(), latent, chunk_size=4):
            break
        gc.collect()

        assert threading.active_count() == before
        assert vae.steps < 40

    def test_raises_what_the_decode_raised(self) -> None:
        vae = ToyVAE()

        def fail(_module: Any, _arguments: Any, _output: Any) -> None:
            if vae.steps == 3:
                raise ZeroDivisionError

        vae.decoder.register_forward_hook(fail)
        taken = 0

        with pytest.raises(ZeroDivisionError):
            for chunk in async_decode.stream(vae.video_decoder(), toy_latent(9), chunk_size=1):
                taken += len(chunk)

        assert taken <= 5

    def test_can_be_gone_through_once(self) -> None:
        vae, latent, _ = _toy()
        stream = async_decode.stream(vae, latent)
        list(stream)

        with pytest.raises(RuntimeError, match="once"):
            iter(stream)

    def test_one_that_is_held_half_way_does_not_keep_the_program_alive(self) -> None:
        program = """
import async_decode
from tests.engine.toy import ToyVAE, toy_latent
chunks = iter(async_decode.stream(ToyVAE().video_decoder(), toy_latent(40), chunk_size=1))
print(next(chunks).shape[0])
"""
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)

        assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")

    def test_a_thread_that_goes_through_it_gets_all_although_the_main_thread_has_ended(self) -> None:
        program = """
import threading
import async_decode
from tests.engine.toy import ToyVAE, toy_latent
begun = threading.Event()
def take():
    chunks = iter(async_decode.stream(ToyVAE().video_decoder(), toy_latent(40), chunk_size=1))
    taken = len(next(chunks))
    begun.set()
    # It ends when Python is about to wait for the other threads.
    threading.main_thread().join()
    print(taken + sum(map(len, chunks)))
threading.Thread(target=take).start()
begun.wait()
"""
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)

        assert (done.returncode, done.stdout, done.stderr) == (0, "157\n", "")

    def test_one_that_a_pools_thread_holds_half_way_does_not_keep_the_program_alive(self) -> None:
        program = """
from concurrent.futures import ThreadPoolExecutor
import async_decode
from tests.engine.toy import ToyVAE, toy_latent
executor = ThreadPoolExecutor(1)
chunks = executor.submit(
    lambda: iter(async_decode.stream(ToyVAE().video_decoder(), toy_latent(40), chunk_size=1))
).result()
print(len(executor.submit(next, chunks).result()))
"""
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)

        assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")

    def test_a_vae_that_decodes_takes_no_second_clip_meanwhile(self) -> None:
        vae, latent, expected = _toy()
        with async_decode.stream(vae, latent, chunk_size=1, buffer_depth=1) as stream:
            chunks = iter(stream)
            next(chunks)
            with pytest.raises(DecodeError, match="decodes another clip right now"):
                async_decode.decode(vae, latent)
            with pytest.raises(DecodeError, match="decodes another clip right now"):
                list(async_decode.stream(vae, latent))

        assert torch.equal(async_decode.decode(vae, latent).frames, expected)


class TestDiffusers:
    """With a real pipeline, as the pages say it."""

    @pytest.fixture
    def pipe(self) -> Any:
        pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
        pytest.importorskip("transformers", reason="pipelines need transformers")
        from tests.engine.tiny_pipeline import tiny_wan_pipeline

        return tiny_wan_pipeline()

    def small(self, pipe: Any) -> Any:
        """``pipe`` as the program calls it, at a size for tests."""
        call = functools.partial(
            pipe, height=16, width=32, num_frames=9, num_inference_steps=1, generator=torch.Generator().manual_seed(0)
        )

        class Small:
            vae = pipe.vae

            def __call__(self, prompt: str, **options: Any) -> Any:
                return call(prompt, **options)

        return Small()

    @pytest.mark.parametrize("page", ["web/docs/python.md"])
    def test_the_program_of_the_page_gives_the_pipelines_own_frames(
        self, page: str, pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = (ROOT / page).read_text(encoding="utf-8")
        programs = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "pipe(" in block]
        monkeypatch.chdir(tmp_path)
        program = programs[0]
        assert len([line for line in program.splitlines() if line.strip()]) <= 5

        scope = {"pipe": self.small(pipe), "prompt": "a cat"}
        exec(compile(program, page, "exec"), scope)  # noqa: S102

        assert _frames_of(tmp_path / "clip.mp4") == 9
        own = self.small(pipe)("a cat", output_type="pt").frames[0].movedim(1, -1)
        ours = async_decode.decode(pipe.vae, self.small(pipe)("a cat", output_type="latent")).frames
        # The pipeline scales x * 0.5 + 0.5, we (x + 1) / 2, in float32 both.
        torch.testing.assert_close(ours, own, rtol=0, atol=1e-6)
        bytes_of = async_decode.decode(
            pipe.vae, self.small(pipe)("a cat", output_type="latent"), finish="diffusers"
        ).frames
        assert torch.equal(bytes_of, own)

    def test_the_other_programs_of_the_page_run_after_it_in_the_same_folder(
        self, pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = (ROOT / "web" / "docs" / "python.md").read_text(encoding="utf-8")
        first, several, *others = re.findall(r"```python\n(.*?)```", text, re.S)
        monkeypatch.chdir(tmp_path)
        upscaled: list[torch.Tensor] = []
        scope = {"pipe": self.small(pipe), "prompt": "a cat", "vae": pipe.vae, "upscale": upscaled.append}

        for program in (first, several):
            exec(compile(program, "python.md", "exec"), scope)  # noqa: S102

        assert sum(len(chunk) for chunk in upscaled) == len(scope["frames"]) == 9
        assert len(list((tmp_path / "frames").glob("*.png"))) == len(list((tmp_path / "frames").glob("*.exr"))) == 9
        scope |= {"torch": torch, "device": torch.device("cpu"), "vae": load_vae(torch.device("cpu"))}
        scope["latents"] = load_latent()[:, :, :2, :6, :8]
        scope |= {"VideoSink": VideoSink, "OutputNames": OutputNames, "segments": [scope["latents"], scope["latents"]]}
        for program in others:
            exec(compile(program, "python.md", "exec"), scope)  # noqa: S102
        assert {path.name for path in tmp_path.glob("*.mp4")} == {"clip.mp4", "preview.mp4", "other.mp4"}
        (video,) = (tmp_path / "videos").iterdir()
        assert _frames_of(video) == 10

    def test_a_bare_tensor_has_to_be_said_what_it_is(self, pipe: Any) -> None:
        latents = self.small(pipe)("a cat", output_type="latent").frames

        with pytest.raises(DecodeError, match="normalized=True"):
            async_decode.decode(pipe.vae, latents)

        raw = async_decode.decode(pipe.vae, latents, normalized=False).frames
        undone = async_decode.decode(pipe.vae, latents, normalized=True).frames
        assert not torch.equal(raw, undone)

    def test_a_pipeline_is_not_its_vae(self, pipe: Any) -> None:
        with pytest.raises(DecodeError, match=r"\.vae"):
            async_decode.decode(pipe, torch.zeros(1, 16, 1, 2, 4))

    @pytest.mark.parametrize(
        "latents, words",
        [
            (torch.zeros(1, 4, 1, 2, 4), "16 channels"),
            (torch.zeros(1, 16, 2, 4), "N, C, T, H, W"),
            (torch.zeros(1, 16, 0, 2, 4), "empty"),
            (torch.zeros(1, 8, 64), "size"),
        ],
    )
    def test_latents_of_another_model_are_refused(self, pipe: Any, latents: torch.Tensor, words: str) -> None:
        with pytest.raises(DecodeError, match=words):
            async_decode.decode(pipe.vae, latents, normalized=False)


def test_rows_of_tokens_are_unpacked_as_the_pipelines_do_it() -> None:
    diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    from tests.engine.diffusers_families import FAMILIES

    ltx = next(family for family in FAMILIES if family.name == "LTX-Video")
    vae, latent = ltx.vae(), ltx.latent(1, (2, 3))
    packed = diffusers.LTXPipeline._pack_latents(latent, 1, 1)
    qwen = next(family for family in FAMILIES if family.name == "Qwen-Image")
    of_image, picture = qwen.vae(), qwen.latent(1, (4, 6))[:, :, :1]
    tokens = diffusers.QwenImagePipeline._pack_latents(picture[:, :, 0], 1, 4, 4, 6)

    video = async_decode.decode(vae, packed, size=(33, 64, 96)).frames
    image = async_decode.decode(of_image, tokens, size=(32, 48)).frames

    assert torch.equal(video, async_decode.decode(vae, latent, normalized=True).frames)
    assert torch.equal(image, async_decode.decode(of_image, picture, normalized=True).frames)
    with pytest.raises(DecodeError, match="tokens"):
        async_decode.decode(vae, packed, size=(33, 64, 128))
