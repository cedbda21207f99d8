"""What users get: the registry's archive holds the pack, pip's wheel the engine, and neither holds anything else.

The archive works when it is unpacked under any name.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.comfyui.client import Client, Prompt
from tests.comfyui.conftest import servers_of
from tests.comfyui.cores import Core
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.server import PACK_FOLDER, REPOSITORY, Server

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

#: What the archive may hold, at its root.
ROOT_FILES = {"LICENSE", "README.md", "__init__.py", "pyproject.toml", "requirements.txt"}
ROOT_FOLDERS = {"async_decode", "example_workflows", "locales", "nodes", "web"}
#: No name of a Python module, and not the pack's own. (Core serves no scripts of a folder whose name holds a space.)
FOLDER = "2-my_decode-nodes"


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """What ``pyproject.toml`` says."""
    return dict(tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """The files that git tracks."""
    if shutil.which("git") is None:
        pytest.skip("no git, which says what belongs to the pack")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip(f"not a git checkout: {listed.stderr.strip()}")
    return [name for name in listed.stdout.split("\0") if name and (REPOSITORY / name).is_file()]


@pytest.fixture
def checkout(tracked: list[str], tmp_path: Path) -> Path:
    """A copy of the repository as a new user has it."""
    folder = tmp_path / "checkout"
    for name in tracked:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def packed(tracked: list[str]) -> list[str]:
    """What ``comfy node pack`` takes: the files that git tracks, without those that ``.comfyignore`` names."""
    pathspec = pytest.importorskip("pathspec")
    patterns = (REPOSITORY / ".comfyignore").read_text(encoding="utf-8").splitlines()
    ignored = pathspec.PathSpec.from_lines("gitignore", patterns)
    return [file for file in tracked if not ignored.match_file(file)]


@pytest.fixture
def archive(packed: list[str], tmp_path: Path) -> Path:
    """The archive."""
    file = tmp_path / "node.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in packed:
            archive.write(REPOSITORY / name, name)
    return file


@pytest.fixture
def installed(
    core: Core, models: Models, archive: Path, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server whose only pack of ours is the archive, unpacked under a name of the user's."""
    server = servers_of(pytestconfig).add(Server(core, tmp_path_factory.mktemp("server"), models=models.folder))
    custom_nodes = server.base / "custom_nodes"
    (custom_nodes / PACK_FOLDER).unlink()
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(custom_nodes / FOLDER)
    server.start()
    yield server
    server.stop()


def test_holds_what_it_should_and_nothing_else(packed: list[str]) -> None:
    files = {file for file in packed if "/" not in file}
    folders = {file.split("/")[0] for file in packed if "/" in file}
    assert files == ROOT_FILES
    assert folders <= ROOT_FOLDERS
    assert {"async_decode", "nodes", "web"} <= folders
    # Nothing that a machine has left behind, and nothing that only developers open.
    stray = re.compile(
        r"(^|/)(\.|__pycache__|node_modules|test_|conftest|(bench|train)\w*(/|\.py$))|\.(py[co]|svg|log|orig|tmp)$"
    )
    assert [file for file in packed if stray.search(file)] == []
    assert "async_decode/demo/weights.safetensors" in packed


def test_is_small(archive: Path) -> None:
    assert archive.stat().st_size < 12 * 2**20


def test_both_lists_of_packages_are_the_same(project: dict[str, Any]) -> None:
    # ComfyUI-Manager reads the one, the registry the other.
    lines = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").split()
    assert sorted(lines) == sorted(project["project"]["dependencies"])


def test_icon_and_banner_are_what_the_registry_takes(project: dict[str, Any], packed: list[str]) -> None:
    # https://docs.comfy.org/registry/specifications: at most 400 x 400, and 21:9.
    root = project["project"]["urls"]["Repository"].replace("github.com", "raw.githubusercontent.com") + "/main/"
    sizes = {}
    for key in ("Icon", "Banner"):
        url = project["tool"]["comfy"][key]
        assert url.startswith(root)
        assert url.removeprefix(root) in packed
        with Image.open(REPOSITORY / url.removeprefix(root)) as image:
            sizes[key] = image.size
    assert sizes["Icon"][0] == sizes["Icon"][1] <= 400
    assert sizes["Banner"][0] * 9 == sizes["Banner"][1] * 21


def test_registrys_own_check_passes_without_a_warning(tmp_path: Path, checkout: Path, archive: Path) -> None:
    comfy = shutil.which("comfy")
    if comfy is None:
        pytest.skip("comfy-cli is not installed")
    env = {**os.environ, "DO_NOT_TRACK": "1", "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    run("git", "init", "--quiet")
    run("git", "add", "--all")
    checked = run(comfy, "--skip-prompt", "node", "validate")
    run(comfy, "--skip-prompt", "node", "pack")

    assert "passed" in checked
    assert "warning" not in checked.lower()
    with zipfile.ZipFile(checkout / "node.zip") as theirs, zipfile.ZipFile(archive) as ours:
        assert sorted(theirs.namelist()) == sorted(ours.namelist())


def test_pip_installs_the_engine_and_nothing_else(
    checkout: Path, tmp_path: Path, tracked: list[str], project: dict[str, Any]
) -> None:
    wheels, packages = tmp_path / "wheels", tmp_path / "packages"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    built = subprocess.run(
        [*pip, "wheel", "--no-deps", "--wheel-dir", wheels, checkout], capture_output=True, text=True, check=False
    )
    if "No matching distribution found for setuptools" in built.stderr:
        pytest.skip("pip cannot get setuptools, which the wheel is built with")
    assert built.returncode == 0, built.stderr
    (wheel,) = wheels.iterdir()
    subprocess.run([*pip, "install", "--no-deps", "--no-compile", "--target", packages, wheel], check=True)

    engine, described = sorted(folder for folder in packages.iterdir() if folder.name != "bin")

    files = {file.relative_to(packages).as_posix() for file in engine.rglob("*") if file.is_file()}
    assert (engine.name, described.suffix) == ("async_decode", ".dist-info")
    assert files == {name for name in tracked if name.startswith("async_decode/")}
    wanted = [line for line in (described / "METADATA").read_text("utf-8").splitlines() if "Requires-Dist" in line]
    always = [line.removeprefix("Requires-Dist: ") for line in wanted if "extra ==" not in line]
    assert always == project["project"]["dependencies"]


def test_engine_needs_nothing_of_what_the_extras_bring(tracked: list[str]) -> None:
    engine = [
        name[:-3].replace("/", ".")
        for name in tracked
        if re.match(r"async_decode/(?!cli/|cluster/|__main__).*\.py$", name)
    ]
    missing = (
        "import importlib, sys\n"
        "for name in ('matplotlib', 'rich', 'diffusers', 'ray', 'psutil', 'safetensors'): sys.modules[name] = None\n"
        f"for name in {engine}: importlib.import_module(name.removesuffix('.__init__'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", missing], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_works_under_another_name(
    installed: Server, models: Models, connect: Callable[[Server], Client], packed: list[str]
) -> None:
    client = connect(installed)
    assert installed.import_error(FOLDER) is None

    prompt = Prompt()
    vae = prompt.add("TestLoadVAE", vae_name=models.file("wan21"))
    decoded = prompt.add(
        "AsyncVAEDecodeSaveFrames",
        samples=random_latent(prompt, 1, 16, 2, 4, 4),
        vae=vae,
        filename_prefix="packed",
        **_defaults(client, "AsyncVAEDecodeSaveFrames"),
    )
    result = client.run(prompt)
    nodes = {name for name, node in client.object_info().items() if node["python_module"] == f"custom_nodes.{FOLDER}"}
    assert len(result.ui(decoded)["images"]) == 5
    assert nodes == {name for name in client.object_info() if name.startswith("Async")}
    for name in (file.removeprefix("web/") for file in packed if file.startswith("web/")):
        with urllib.request.urlopen(f"{installed.url}/extensions/{FOLDER}/{name}", timeout=30) as answer:
            assert answer.read() == (REPOSITORY / "web" / name).read_bytes()
    listed = json.loads(urllib.request.urlopen(f"{installed.url}/extensions", timeout=30).read())
    scripts = [f"/extensions/{FOLDER}/{file[4:]}" for file in packed if re.match(r"web/.*\.js$", file)]
    assert set(scripts) <= set(listed)


def _defaults(client: Client, node: str) -> dict[str, Any]:
    """The widgets of a node at their defaults, but for the prefix."""
    required = client.object_info(node)[node]["input"]["required"]
    return {
        name: spec[1]["default"]
        for name, spec in required.items()
        if "default" in spec[1] and name != "filename_prefix"
    }
