"""ComfyUI-Manager installs the pack from a git URL, with what it needs, and its nodes work.

Manager's own command line does it, into a copy of ComfyUI and with an interpreter made for the test: the checkout and
its ``.venv`` stay as they are. Git's repository of the pack comes over HTTP from this machine; Manager itself comes
from where pip gets its packages. (A ComfyUI of 2025 had Manager as a custom node, which pip does not have; the command
line of the package runs there as well, and does the same.)
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.comfyui.client import Client, Prompt
from tests.comfyui.conftest import servers_of
from tests.comfyui.cores import Core
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import files_of
from tests.comfyui.server import PACK_FOLDER, REPOSITORY, Server

#: What the repository is called at its host, and hence the folder in ``custom_nodes``.
NAME = "async-vae-decode"
#: Of the pack's requirements the one that ComfyUI does not have itself.
REQUIREMENT = "imageio_ffmpeg"
#: What a checkout holds, at its top, that is not ComfyUI's.
USERS = {".git", ".venv", "custom_nodes", "input", "models", "output", "temp", "user", "venv"}
#: How long one step may take that downloads something, in seconds.
TIMEOUT = 120
#: Prints where the packages of an interpreter are.
PRINT_PACKAGES = (
    "import json, sys; "
    "print(json.dumps([path for path in sys.path if path.endswith(('site-packages', 'dist-packages'))]))"
)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A bare repository with the pack's tracked files as they are now, ready for a plain web server."""
    if shutil.which("git") is None:
        pytest.skip("no git, which Manager installs with")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip(f"not a git checkout: {listed.stderr.decode().strip()}")
    bare = tmp_path / "host" / f"{NAME}.git"
    # Nothing of the user's: no hooks, no signatures, no other line ends.
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}

    def git(*arguments: str, stdin: bytes = b"") -> None:
        command = ["git", f"--git-dir={bare}", f"--work-tree={REPOSITORY}", *arguments]
        subprocess.run(command, env=env, input=stdin, cwd=REPOSITORY, check=True, capture_output=True)

    subprocess.run(["git", "init", "--quiet", "--bare", bare], env=env, check=True, capture_output=True)
    git("add", "--force", "--pathspec-from-file=-", "--pathspec-file-nul", stdin=listed.stdout)
    git("-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "--message=The pack")
    git("update-server-info")
    return bare


@pytest.fixture
def with_manager(core: Core, tmp_path: Path) -> Iterator[Core]:
    """A copy of ``core`` and an interpreter that has Manager and all of its packages, but not our requirement."""
    path = tmp_path / "ComfyUI"
    shutil.copytree(
        core.path, path, ignore=lambda folder, names: USERS & set(names) if Path(folder) == core.path else set()
    )
    (path / "custom_nodes").mkdir()

    # Its packages are there without being copied: pip sees them, and leaves them alone as not being in this place.
    layer = tmp_path / "packages"
    layer.mkdir()
    for folder in _packages(core.python):
        for package in folder.iterdir():
            if not package.name.startswith(REQUIREMENT) and not (layer / package.name).exists():
                (layer / package.name).symlink_to(package)
    venv = tmp_path / "venv"
    try:
        _run([core.python, "-m", "venv", venv])
    except ProgramFailed as error:
        pytest.skip(f"{core.python} makes no virtual environments: {str(error)[-500:]}")
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    (_packages(python)[0] / "comfyui.pth").write_text(f"import site; site.addsitedir({str(layer)!r})\n")

    # The one that this ComfyUI asks for. Those without a Manager of their own take the newest.
    asked = core.path / "manager_requirements.txt"
    wanted = ["-r", asked] if asked.is_file() else ["comfyui-manager"]
    try:
        _run([python, "-m", "pip", "install", "--quiet", *wanted])
    except ProgramFailed as error:
        pytest.skip(f"pip cannot get comfyui-manager for ComfyUI {core.version}: {str(error)[-500:]}")
    yield replace(core, path=path, python=python)
    # pytest keeps the folders of three runs, and these are large.
    shutil.rmtree(venv)
    shutil.rmtree(path)


def test_a_git_url_gives_working_nodes(
    with_manager: Core,
    repository: Path,
    models: Models,
    connect: Callable[[Server], Client],
    pytestconfig: pytest.Config,
    request: pytest.FixtureRequest,
) -> None:
    core = with_manager
    with served(repository.parent) as host:
        env = {**os.environ, "COMFYUI_PATH": str(core.path), "no_proxy": "127.0.0.1"}
        command = [core.python, "-m", "cm_cli", "install", "--exit-on-fail", f"{host}/{repository.name}"]
        said = _run(command, env=env, cwd=core.path)

    installed = core.path / "custom_nodes" / NAME
    assert "[INSTALLED]" in said
    assert (installed / ".git").is_dir(), said
    # Manager has read our requirements, and nothing else.
    packages = _packages(core.python)[0]
    assert (packages / REQUIREMENT).is_dir(), said
    assert not (packages / "torch").exists() and not (packages / "numpy").exists(), said

    # Where ComfyUI starts Manager itself, it says what it thinks of the pack.
    in_server = (core.path / "manager_requirements.txt").is_file()
    options = ["--enable-manager"] if in_server else []
    server = servers_of(pytestconfig).add(Server(core, core.path, models=models.folder, options=options))
    (server.base / "custom_nodes" / PACK_FOLDER).unlink()
    request.addfinalizer(server.stop)
    server.start()
    client = connect(server)
    assert server.import_error(NAME) is None
    nodes = {name for name, node in client.object_info().items() if node["python_module"] == f"custom_nodes.{NAME}"}
    assert nodes == set(json.loads((REPOSITORY / "locales/en/nodeDefs.json").read_text(encoding="utf-8")))
    if in_server:
        known = client.get("/v2/customnode/installed")[NAME]
        assert (known["enabled"], known["ver"]) == (True, _git_head(installed))

    # With the ffmpeg that Manager has fetched.
    prompt = Prompt()
    vae = models.load(prompt, "wan21")
    latent = random_latent(prompt, 1, 16, 2, 4, 4)
    saved = client.add(prompt, "AsyncVAEDecodeSaveVideo", samples=latent, vae=vae, filename_prefix="managed")
    (video,) = files_of(server, client.run(prompt), saved)
    assert video.stat().st_size > 0


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the files in ``folder``; gives the URL, without a slash at the end."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as host:
        thread = threading.Thread(target=host.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{host.server_port}"
        finally:
            host.shutdown()
            thread.join()


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line on each."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class ProgramFailed(RuntimeError):
    """A program failed or hangs; the message holds the end of what it printed."""


def _run(command: Sequence[str | Path], **settings: Any) -> str:
    """What a program prints.

    Raises:
        ProgramFailed: it failed, or took longer than ``TIMEOUT``.
    """
    program = [str(part) for part in command]
    try:
        done = subprocess.run(
            program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT, **settings
        )
    except subprocess.TimeoutExpired as error:
        raise ProgramFailed(f"{program} took longer than {TIMEOUT} s:\n{str(error.stdout)[-3000:]}") from None
    if done.returncode:
        raise ProgramFailed(f"{program} failed:\n{done.stdout[-3000:]}")
    return done.stdout


def _packages(python: Path) -> list[Path]:
    """Where the packages of an interpreter are; its own come first."""
    return [Path(path) for path in json.loads(_run([python, "-c", PRINT_PACKAGES]).splitlines()[-1])]


def _git_head(checkout: Path) -> str:
    return _run(["git", "-C", checkout, "rev-parse", "HEAD"]).strip()
