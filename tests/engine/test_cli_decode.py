"""The command ``decode``: many latents, each into a file of its own, and what is left of a run that was cut off."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import wave
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from async_decode import DecodeError
from async_decode.__main__ import main
from async_decode.cluster import Options, decode_many
from async_decode.demo import LATENT_PATH, load_latent

safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
pytest.importorskip("rich", reason="the extra 'cli' is not installed")

ROOT = Path(__file__).parents[2]


def small(seed: int = 0, latents: int = 2) -> torch.Tensor:
    """A latent of the demo's VAE that decodes in a moment."""
    part = load_latent()[:, :, :latents, :6, :8]
    return part + 0.1 * torch.randn(part.shape, generator=torch.Generator().manual_seed(seed))


def save(path: Path, latent: torch.Tensor) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pt":
        torch.save({"samples": latent}, path)
    elif path.suffix == ".latent":
        safetensors.save_file({"latent_tensor": latent, "latent_format_version_0": torch.tensor([])}, str(path))
    else:
        safetensors.save_file({"latents": latent}, str(path))
    return path


def lines(report: Path, *statuses: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    return [line for line in found if line["status"] in (statuses or ("done",))]


def run(folder: Path, *arguments: str, out: str = "clips/{name}.mkv") -> int:
    return main(["decode", *arguments, "--out", str(folder / out), "--fps", "8", "--device", "cpu"])


def test_files_folders_patterns_and_manifests(tmp_path: Path) -> None:
    save(tmp_path / "a" / "one.latent", small(1))
    save(tmp_path / "a" / "deep" / "two.safetensors", small(2))
    save(tmp_path / "b" / "three.pt", small(3))
    save(tmp_path / "b" / "four.latent", small(4))
    (tmp_path / "b" / "notes.md").write_text("no latent")
    save(tmp_path / "c" / "five.latent", small(5))
    (tmp_path / "list.txt").write_text("# of the night\nc/five.latent\n")
    (tmp_path / "list.jsonl").write_text('{"latent": "a/one.latent"}\n')

    status = run(
        tmp_path,
        str(tmp_path / "a"),
        str(tmp_path / "b" / "*"),
        str(tmp_path / "list.txt"),
        str(tmp_path / "list.jsonl"),
    )

    assert status == 0
    names = {"one.mkv", "two.mkv", "three.mkv", "four.mkv", "five.mkv"}
    assert {path.name for path in (tmp_path / "clips").glob("*.mkv")} == names
    told = lines(tmp_path / "clips" / "async-decode.jsonl")
    assert {Path(line["file"]).name for line in told} == names
    assert all(line["frames"] == 5 and line["exact"] and line["bounded"] and len(line["hash"]) == 64 for line in told)
    assert len({line["hash"] for line in told}) == 5


def test_a_latent_of_several_parts_gives_its_first(tmp_path: Path) -> None:
    video, sound = small(1), torch.zeros(1, 8, 4)
    torch.save({"samples": [video, sound]}, tmp_path / "list.pt")
    safetensors.save_file({"latent_tensor.0": video, "latent_tensor.1": sound}, str(tmp_path / "parts.latent"))
    save(tmp_path / "plain.latent", video)

    assert run(tmp_path, str(tmp_path)) == 0

    told = lines(tmp_path / "clips" / "async-decode.jsonl")
    assert len(told) == 3 and len({line["hash"] for line in told}) == 1


def test_a_tilde_in_quotes_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(home))
    save(home / "in" / "a.latent", small())
    monkeypatch.chdir(tmp_path)

    assert main(["decode", "~/in/*", "--out", "~/clips/{name}.mkv", "--fps", "8", "--device", "cpu"]) == 0
    again = ["decode", "~/in", "--out", "~/clips/{name}.mkv", "--fps", "8", "--report", "~/runs.jsonl"]
    assert main([*again, "--overwrite", "--device", "cpu"]) == 0

    assert {path.name for path in (home / "clips").iterdir()} == {"a.mkv", "async-decode.jsonl"}
    assert len(lines(home / "runs.jsonl")) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_latent_that_is_named_twice_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "in" / "a.latent", small())
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("./in/../in/a.latent\n")

    assert run(tmp_path, "in", "./in/a.latent", str(tmp_path / "in" / "*"), "list.txt") == 0

    assert len(lines(tmp_path / "clips" / "async-decode.jsonl")) == 1


def test_files_that_a_folder_hides_are_no_latents(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.latent", small())
    # What macOS leaves beside every file on other systems' disks.
    (tmp_path / "in" / "._a.latent").write_bytes(b"\0\5\x16\7")
    hidden = save(tmp_path / "in" / ".old" / "b.latent", small(1))

    assert run(tmp_path, str(tmp_path / "in")) == 0
    assert [Path(line["file"]).name for line in lines(tmp_path / "clips" / "async-decode.jsonl")] == ["a.mkv"]
    # Who names one means it.
    assert run(tmp_path, str(hidden), str(hidden.parent)) == 0
    assert (tmp_path / "clips" / "b.mkv").exists()


@pytest.mark.skipif(os.name == "nt", reason="no such names")
@pytest.mark.parametrize(("name", "file"), [("100%d [*]", "100_ [_]"), ("%05d", "_"), ("50% {name}", "50% {name}")])
def test_a_latents_name_is_never_taken_for_the_place_of_a_number(tmp_path: Path, name: str, file: str) -> None:
    save(tmp_path / "in" / f"{name}.latent", small())

    assert run(tmp_path, str(tmp_path / "in")) == 0
    images = tmp_path / "frames" / "{name}" / "{name}-*.png"
    assert main(["decode", str(tmp_path / "in"), "--out", str(images), "--device", "cpu"]) == 0

    assert (tmp_path / "clips" / f"{file}.mkv").exists()
    assert (tmp_path / "frames" / name / f"{file}-00005.png").exists()


def test_tensors_that_are_no_rows_of_real_numbers_are_named_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    torch.save(small().to_sparse(), tmp_path / "in" / "sparse.pt")
    torch.save(small().to(torch.complex64), tmp_path / "in" / "complex.pt")

    assert run(tmp_path, str(tmp_path / "in")) == 3

    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert len(said) == 2
    for kind in "torch.sparse_coo", "torch.complex64":
        assert any(f"expected a dense tensor of real numbers, got {kind}; save latent." in line for line in said)


def test_a_reason_that_torch_gives_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "in" / "a.latent", small())

    def raises(*_: Any, **__: Any) -> None:
        raise NotImplementedError("no such kernel\n\nCPU: registered at\nMeta: registered at")

    monkeypatch.setattr("async_decode.cluster.decode_clip.decode_into", raises)

    assert run(tmp_path, str(tmp_path / "in")) == 3
    (line,) = lines(tmp_path / "clips" / "async-decode.jsonl", "failed")
    assert line["error"] == "NotImplementedError: no such kernel"


def test_one_bad_latent_fails_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = save(tmp_path / "in" / "good.latent", small())
    (tmp_path / "in" / "bad.latent").write_bytes(good.read_bytes()[:999])
    save(tmp_path / "in" / "other.latent", torch.zeros(1, 4, 8, 8))

    class Evil:
        def __reduce__(self) -> Any:
            return (os.system, (f"touch {tmp_path / 'owned'}",))

    torch.save(Evil(), tmp_path / "in" / "evil.pt")

    assert run(tmp_path, str(tmp_path / "in")) == 3

    report = tmp_path / "clips" / "async-decode.jsonl"
    assert [Path(line["file"]).name for line in lines(report)] == ["good.mkv"]
    reasons = {Path(line["latent"]).name: line["error"] for line in lines(report, "failed")}
    assert reasons.keys() == {"bad.latent", "other.latent", "evil.pt"}
    assert "safetensors" in reasons["bad.latent"] and "(N, C, T, H, W)" in reasons["other.latent"]
    assert not (tmp_path / "owned").exists()
    assert {path.name for path in (tmp_path / "clips").iterdir()} == {"good.mkv", "async-decode.jsonl"}


def test_resume_decodes_what_is_missing_or_has_changed(tmp_path: Path) -> None:
    for name in "abc":
        save(tmp_path / "in" / f"{name}.latent", small(ord(name)))
    report = tmp_path / "clips" / "async-decode.jsonl"
    assert run(tmp_path, str(tmp_path / "in")) == 0
    first = {line["file"]: line for line in lines(report)}

    def decoded() -> set[str]:
        """What a further run decodes."""
        before = len(lines(report))
        assert run(tmp_path, str(tmp_path / "in")) == 0
        return {Path(line["file"]).stem for line in lines(report)[before:]}

    assert decoded() == set()
    decode_many(tmp_path / "in", str(tmp_path / "clips" / "{name}.mkv"), options=Options(fps=Fraction(8)))
    assert decoded() == set()
    # The same content at another time is the same.
    os.utime(tmp_path / "in" / "a.latent", (1, 1))
    assert decoded() == set()
    (tmp_path / "clips" / "b.mkv").unlink()
    assert decoded() == {"b"}
    save(tmp_path / "in" / "c.latent", small(7))
    assert decoded() == {"c"}
    hashes = {line["file"]: line["hash"] for line in lines(report)}
    assert [first[name]["hash"] == hashes[name] for name in sorted(first)] == [True, True, False]
    # Another option: everything is another file.
    assert run(tmp_path, str(tmp_path / "in"), "--ping-pong") == 0
    assert len(lines(report)) == 3 + 2 + 3


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.latent", small())
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mkv").write_bytes(b"mine")

    assert run(tmp_path, str(tmp_path / "in")) == 3
    assert (tmp_path / "clips" / "a.mkv").read_bytes() == b"mine"
    assert "there already" in lines(tmp_path / "clips" / "async-decode.jsonl", "failed")[0]["error"]


def test_a_run_that_was_killed_after_a_file_got_its_name_knows_it_again(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.latent", small())
    report = tmp_path / "clips" / "async-decode.jsonl"
    assert run(tmp_path, str(tmp_path / "in")) == 0
    kept = [line for line in report.read_text(encoding="utf-8").splitlines() if '"begun"' in line]
    report.write_text("\n".join(kept) + '\n{"schema": 1, "file": "half a li', encoding="utf-8")

    assert run(tmp_path, str(tmp_path / "in")) == 0

    whole = [line for line in report.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    assert [json.loads(line)["status"] for line in whole] == ["begun"]


@pytest.mark.parametrize(
    "arguments, out, words",
    [
        (["nowhere/"], "{name}.mkv", "no such file"),
        (["{in}/*.json"], "{name}.mkv", ".pt, .pth; lists of them end in .txt or .jsonl)"),
        (["{in}"], "{name.x}.mkv", "{name}, {folder} or {number}"),
        (["{in}"], "in/a.latent/{name}.mkv", "a file is where a folder should be; choose another folder"),
        (["{in}", "--report", "{in}"], "{name}.mkv", "name another place"),
        (["{in}", "--report", "{in}/a.latent/r.jsonl"], "{name}.mkv", "a file is where a folder should be"),
        (["{in}", "--sound", "nowhere.wav"], "{name}.mkv", "nowhere.wav cannot be read: No such file or directory"),
        (["{in}", "--quality", "20"], "{name}.mkv", "ffv1 has no such choice, got --quality 20"),
        (["{in}", "--workers", "2"], "{name}.mkv", "got --workers 2; say --ray auto as well"),
        (["{in}", "--ray", "auto"], "{name}.mkv", "Ray gives it, got --device cpu"),
        (["{in}", "--tiling"], "{name}.mkv", "the embedded VAE decodes here, got --tiling; leave it out"),
        (["{in}", "--normalized", "yes"], "{name}.mkv", "got --normalized yes; leave it out"),
        (["{in}", "--vae-class", "AutoencoderKLWan"], "{name}.mkv", "got --vae-class AutoencoderKLWan"),
        (["{in}", "--vae", "{in}/a.latent"], "{name}.mkv", "say --vae-class"),
        (["{in}", "--loops", "-1"], "{name}.mkv", "expected 0 or more repeats, got -1"),
        (["{in}"], "{title}.mkv", "{name}, {folder} or {number}"),
        (["{in}"], "clip.mkv", "would both become"),
        (["{in}"], "{name}.txt", "ending"),
        (["{in}", "--format", "divx"], "{name}.mp4", "h264"),
        # The hardware that is least likely to be where tests run.
        (["{in}", "--format", "h264-amf"], "{name}.mp4", "h264_amf does not work on this machine"),
        (["{in}", "--format", "mp4 (H.265 AMF)"], "{name}.mp4", "such as h264"),
        (["{in}", "--format", "hevc-nvenc"], "{name}.mkv", "is written to .mp4 files"),
        (["{in}", "--quality", "99"], "{name}.mp4", "crf"),
        (["{in}", "--vae", "nowhere"], "{name}.mp4", "nowhere is neither"),
        (["{in}", "--comfyui", "{in}", "--vae", "a"], "{name}.mp4", "not ComfyUI's folder"),
        (["{in}", "--comfyui", "{in}"], "{name}.mp4", "say which"),
        (["{in}", "--sound", "{in}/a.latent"], "{name}.mp4", "WAV"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_before_anything_is_decoded(
    tmp_path: Path, arguments: list[str], out: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        save(tmp_path / "in" / f"{name}.latent", small())

    status = run(tmp_path, *[part.replace("{in}", str(tmp_path / "in")) for part in arguments], out=out)

    assert status == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and words in line
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fps", "0"], "--fps: expected frames a second, such as 24 or 30000/1001, got 0"),
        (["--fps", "1/0"], "--fps: expected frames a second, such as 24 or 30000/1001, got 1/0"),
        (["--fps", "fast"], "--fps: expected frames a second, such as 24 or 30000/1001, got fast"),
        (["--fps", "nan"], "--fps: expected frames a second, such as 24 or 30000/1001, got nan"),
        (["--chunk-size", "0"], "--chunk-size: expected a whole number from 1 to 4096, got 0"),
        (["--buffer-depth", "-1"], "--buffer-depth: expected a whole number from 1 to 64, got -1"),
        (["--device", "foo"], "--device: torch has no device 'foo' here; there is cpu"),
        (["--device", "cuda:99"], "--device: torch has no device 'cuda:99' here; there is cpu"),
        (["--ray", "auto", "--workers", "0"], "--workers: expected a whole number from 1 to 100000, got 0"),
        (["--decoder", "fast"], "--decoder: invalid choice: 'fast'"),
    ],
)
def test_bad_values_are_one_line(
    tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "in" / "a.latent", small())

    with pytest.raises(SystemExit) as left:
        main(["decode", str(tmp_path / "in"), "--out", str(tmp_path / "{name}.mkv"), *arguments])

    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("list.txt", b"\xff\xfe\x00", "list.txt: expected a manifest, text in UTF-8"),
        ("list.jsonl", b'{"latent": 3}\n', 'list.jsonl, line 1: expected {"latent": PLACE}, got {"latent": 3}'),
        ("list.jsonl", b'{"clip": "a"}\n', 'list.jsonl, line 1: expected {"latent": PLACE}'),
    ],
)
def test_a_manifest_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)

    assert run(tmp_path, str(tmp_path / name)) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_python_is_told_of_sizes_and_devices_before_anything_is_made(tmp_path: Path) -> None:
    latent, to = save(tmp_path / "a.latent", small()), str(tmp_path / "{name}.mkv")

    for wrong, words in ({"chunk_size": 0}, "chunk_size"), ({"buffer_depth": 65}, "buffer_depth"):
        with pytest.raises(ValueError, match=f"{words} must be from 1"):
            decode_many(latent, to, options=Options(fps=8), **wrong)
    with pytest.raises(DecodeError, match="torch has no device 'foo' here"):
        decode_many(latent, to, options=Options(fps=8), device="foo")

    assert [path.name for path in tmp_path.iterdir()] == ["a.latent"]


def test_another_familys_latent_and_a_warning_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "in" / "four.latent", small()[:, :4].clone())
    save(tmp_path / "in" / "nan.latent", torch.full_like(small(), torch.nan))

    assert run(tmp_path, str(tmp_path / "in")) == 3

    said = capsys.readouterr().err.splitlines()
    assert any("four.mkv: latents: the embedded VAE takes 16 channels, got 4; say with --vae" in line for line in said)
    assert any(line.startswith("warning: ") and "nan.mkv: frame 0 is the first that holds NaN" in line for line in said)
    # That is ComfyUI's; here one says --dtype.
    assert any("(float32; ComfyUI: --fp32-vae)" in line for line in said)


def test_reasons_of_clips_are_one_line_with_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    save(folder / "taken.latent", small())
    torch.save(Fraction(1, 2), folder / "code.pt")
    (folder / "list.txt").write_text("taken.latent\ncode.pt\nnowhere.pt\n")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "taken.mkv").write_bytes(b"mine")

    assert run(tmp_path, str(folder / "list.txt")) == 3

    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert len(said) == 3
    assert any("taken.mkv is there already; choose another name, or say --overwrite" in line for line in said)
    assert any("code.pt holds more than tensors" in line and ".safetensors" in line for line in said)
    assert any("nowhere.pt: there is no such file" in line for line in said)
    assert not any("weights_only" in line for line in said)


def test_images_sound_and_formats(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.latent", small())
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(4 * 8000))
    latent = str(tmp_path / "in")

    assert main(["decode", latent, "--out", str(tmp_path / "{name}" / "*.jpg"), "--quality", "80"]) == 0
    both = [latent, str(save(tmp_path / "b.latent", small(1)))]
    assert len({line["clip"] for line in decode_many(both, str(tmp_path / "all" / "{name}-*.png")).lines}) == 2
    assert run(tmp_path, latent, "--format", "av1", "--preset", "ultrafast", out="{name}.mp4") in (0, 3)
    assert run(tmp_path, latent, "--sound", str(tmp_path / "sound.wav"), out="heard/{name}.mkv") == 0

    assert len(list((tmp_path / "a").glob("*.jpg"))) == 5
    assert (tmp_path / "heard" / "a.mkv").exists()


def test_places_of_fsspec_are_read_and_written_whole(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="the extra 'ray' is not installed")
    memory = fsspec.filesystem("memory")
    local = save(tmp_path / "a.latent", small())
    memory.pipe("/latents/a.latent", local.read_bytes())
    memory.pipe("/latents/b.latent", save(tmp_path / "b.latent", small(2)).read_bytes())
    report = ["--report", str(tmp_path / "report.jsonl")]
    told = ["memory://latents", "--fps", "8", "--device", "cpu", *report]
    seen: list[list[str]] = []
    own = type(memory).mv

    def mv(self: Any, source: str, target: str, **options: Any) -> None:
        seen.append([name for name in memory.find("/clips") if not name.endswith(".part")])
        own(self, source, target, **options)

    type(memory).mv = mv
    try:
        assert main(["decode", *told, "--out", "memory://clips/{name}.mkv"]) == 0
    finally:
        type(memory).mv = own
    assert main(["decode", *told, "--out", "memory://clips/{name}.mkv"]) == 0

    # Until a file is whole, nothing has its name; afterwards no part is left.
    assert [len(names) for names in seen] == [0, 1]
    assert sorted(memory.find("/clips")) == ["/clips/a.mkv", "/clips/b.mkv"]
    assert run(tmp_path, str(local)) == 0
    # Matroska's files have a number of their own in them.
    assert len(memory.cat("/clips/a.mkv")) == (tmp_path / "clips" / "a.mkv").stat().st_size
    assert len(lines(tmp_path / "report.jsonl")) == 2
    images = ["decode", "memory://latents/a.latent", "--out", "memory://frames/{name}/*.png", *report]
    assert main(images) == 0
    assert len(memory.find("/frames/a")) == 5


def test_a_vae_of_diffusers_in_a_folder(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLWan(base_dim=8, z_dim=4, latents_mean=[0.1] * 4, latents_std=[1.5] * 4)
    vae.save_pretrained(tmp_path / "pipeline" / "vae")
    latent = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    save(tmp_path / "in" / "a.latent", latent)
    save(tmp_path / "in" / "b.safetensors", latent)
    told = ["--vae", str(tmp_path / "pipeline")]

    # Of ComfyUI's file it is known what it is; of the other one it has to be said.
    assert run(tmp_path, str(tmp_path / "in"), *told) == 3
    report = tmp_path / "clips" / "async-decode.jsonl"
    assert "normalized=True" in lines(report, "failed")[0]["error"]
    assert run(tmp_path, str(tmp_path / "in" / "b.safetensors"), *told, "--normalized", "no", out="n/{name}.mkv") == 0

    hashes = {line["hash"] for line in (*lines(report), *lines(tmp_path / "n" / "async-decode.jsonl"))}
    assert len(hashes) == 1


def test_a_vae_that_decodes_at_a_timestep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    import async_decode
    from async_decode.sinks.frames_hash import FramesHash
    from tests.engine.diffusers_families import at_a_timestep

    at_a_timestep().save_pretrained(tmp_path / "vae")
    # Loaded as the command does it: weights that lie elsewhere in memory may be added up in another order.
    vae = diffusers.AutoencoderKLLTXVideo.from_pretrained(tmp_path / "vae").eval()
    latents = [torch.randn(1, 8, n, 2, 3, generator=torch.Generator().manual_seed(n)) for n in (2, 1)]
    for name, latent in zip("ab", latents, strict=True):
        save(tmp_path / "in" / f"{name}.pt", latent)
    given = [str(tmp_path / "in"), "--vae", str(tmp_path / "vae"), "--normalized", "yes"]
    report = tmp_path / "clips" / "async-decode.jsonl"

    def hashes(seed: int, noise_scale: float | None) -> set[str]:
        """What Python decodes, with a generator of its own for each clip."""
        found = set()
        for latent in latents:
            told = FramesHash()
            generator = torch.Generator().manual_seed(seed)
            how: dict[str, Any] = {"decode_timestep": 0.05, "decode_noise_scale": noise_scale, "generator": generator}
            async_decode.decode(vae, latent, told, normalized=True, **how)
            found.add(told.hexdigest)
        return found

    assert run(tmp_path, *given) == 2
    assert "say --decode-timestep and --decode-noise-scale as" in capsys.readouterr().err
    assert run(tmp_path, *given, "--seed", "7") == 2
    assert (
        "error: --seed 7 is of the noise that belongs to a timestep; say --decode-timestep" in capsys.readouterr().err
    )
    assert run(tmp_path, *given, "--decode-timestep", "nan") == 2
    assert "error: --decode-timestep: expected a number, got nan" in capsys.readouterr().err
    assert not report.exists()

    at = [*given, "--decode-timestep", "0.05"]
    assert run(tmp_path, *at) == 0
    assert {line["hash"] for line in lines(report)} == hashes(0, None)
    assert run(tmp_path, *at, "--seed", "0") == 0
    assert len(lines(report)) == 2, "0 is the default, and all is whole"
    assert run(tmp_path, *at, "--seed", "7", "--decode-noise-scale", "0.025") == 0
    assert {line["hash"] for line in lines(report)[2:]} == hashes(7, 0.025)


def test_a_timestep_for_a_vae_that_has_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    diffusers.AutoencoderKLWan(base_dim=8, z_dim=4).save_pretrained(tmp_path / "vae")
    save(tmp_path / "a.pt", small())

    assert run(tmp_path, str(tmp_path / "a.pt"), "--vae", str(tmp_path / "vae"), "--decode-timestep", "0.05") == 2
    assert (
        "--decode-timestep: this AutoencoderKLWan decodes without a timestep; leave it out" in capsys.readouterr().err
    )
    assert run(tmp_path, str(tmp_path / "a.pt"), "--decode-timestep", "0.05") == 2
    assert "but the embedded VAE decodes here, got --decode-timestep 0.05" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's here")
@pytest.mark.parametrize("ends", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_clean_and_the_next_run_goes_on(tmp_path: Path, ends: signal.Signals) -> None:
    save(tmp_path / "in" / "a.latent", small())
    # Later than the short one in the order of names, but longer: it comes first.
    shutil.copy(LATENT_PATH, tmp_path / "in" / "z.latent")
    arguments = ["decode", str(tmp_path / "in"), "--out", str(tmp_path / "clips/{name}.mp4"), "--fps", "8"]
    # Without looking ahead, a second is in the file as soon as it was decoded.
    arguments += ["--preset", "ultrafast"]
    process = subprocess.Popen(
        [sys.executable, "-m", "async_decode", *arguments, "--device", "cpu"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (parts := [path for path in (tmp_path / "clips").glob("z.mp4*.part") if path.stat().st_size > 2000]):
        assert time.monotonic() < deadline and process.poll() is None, parts
        time.sleep(0.02)
    process.send_signal(ends)
    _, said = process.communicate(timeout=60)

    assert process.returncode == 128 + ends, said
    assert b"cancelled" in said and b"Traceback" not in said
    left = {path.name for path in (tmp_path / "clips").iterdir()}
    assert left == {"async-decode.jsonl", "z_cut-short.mp4"}
    assert main([*arguments, "--device", "cpu"]) == 0
    assert {path.name for path in (tmp_path / "clips").glob("*.mp4")} == {"a.mp4", "z.mp4", "z_cut-short.mp4"}


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's here")
def test_the_second_ctrl_c_does_not_wait_for_the_first() -> None:
    program = """
import os, signal, time
from async_decode.cli.decode import _twice_at_once
with _twice_at_once():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(600)
    except KeyboardInterrupt:
        print("ending in order", flush=True)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(600)
    finally:
        print("ended in order", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)

    assert (done.returncode, done.stdout, done.stderr) == (130, "ending in order\n", "ended at once\n")
