"""Many clips on Ray: one actor a GPU, which loads the VAE once and reads, decodes and saves one clip after the other.

Ray starts the actors, restarts those that died, and says what became of each call. Frames stay in the actor; what comes
back is a line of the journal. An actor has one clip in hand and one more waiting, whose latent is read meanwhile. What
Ray's own retries cannot do is decided here: the clip of an actor that died goes to any other one (Ray's retry waits for
the same actor, and if its machine is gone, for ever), and a clip that took two actors with it fails alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ..decoders import Mode, check_mode
from ..errors import AsyncDecodeError, Cancelled, DecodeError
from ..sinks.paths import Options
from .clips import Clip, Line, clips_of, facts_of
from .decode_clip import decode_clip
from .latent_files import LatentFile, read_latent
from .ray_cluster import connect, reason_of
from .shared_folders import check_seen, everywhere, signed
from .vaes import VAEPlace

#: A clip that was in hand of so many actors that died is not tried again.
DEATHS = 2
#: Clips that an actor has: one in hand, one waiting.
IN_FLIGHT = 2
#: How long actors may take to end their clips in order when the run is cancelled, in seconds.
GRACE = 10.0


class DecodeActor:
    """One process that decodes clips; also for Ray Data's ``map_batches``, where it takes batches with ``latent``.

    Args:
        place: where the VAE is. Default: ``None``, the embedded VAE.
        to: for Ray Data: where a clip goes, as of ``decode_many``. Default: ``""``.
        options: for Ray Data: how files are written. Default: ``None``, as ``Options()``.
        chunk_size: as of ``async_decode.decode``. Default: ``4``.
        buffer_depth: as of ``async_decode.decode``. Default: ``3``.
        decoder: as of ``async_decode.decode``. Default: ``"auto"``.
        device: where it decodes. Default: ``None``, on the GPU that Ray gave it, or on the CPU.
        sees: files that its machine has to see. Default: ``()``.

    Raises:
        DecodeError: it does not see one of them, or the VAE cannot be loaded.
    """

    def __init__(
        self,
        place: VAEPlace | None = None,
        *,
        to: str = "",
        options: Options | None = None,
        chunk_size: int = 4,
        buffer_depth: int = 3,
        decoder: Mode = "auto",
        device: str | None = None,
        sees: Sequence[str] = (),
    ) -> None:
        import torch

        check_mode(decoder)
        check_seen(sees)
        # Ray shows an actor its own GPU only.
        self._vae = (place or VAEPlace()).load(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._to, self._options = to, options or Options()
        self._how: dict[str, Any] = {"chunk_size": chunk_size, "buffer_depth": buffer_depth, "decoder": decoder}
        self._stopped = threading.Event()
        self._reader = ThreadPoolExecutor(1, "async-decode reader")
        self._read: dict[str, Future[LatentFile]] = {}

    def ready(self) -> int:
        """Its process; answers once the VAE is loaded."""
        return os.getpid()

    def prefetch(self, clip: Clip) -> None:
        """Read the latent of a clip that comes next, while another one is decoded."""
        self._read[clip.latent] = self._reader.submit(read_latent, clip.latent)

    def stop(self) -> None:
        """End the clip in hand: its video is closed, under a name that says that it was cut short."""
        self._stopped.set()

    def decode(self, clip: Clip, options: Options) -> Line:
        """Decode a clip into its file; its line."""
        read = self._read.pop(clip.latent, None)
        file = None
        if read is not None and read.exception() is None:
            file = read.result()
        try:
            return decode_clip(self._vae, clip, options, file=file, on_progress=self._go_on, **self._how)
        except Cancelled:
            return {**facts_of(clip), "status": "cancelled"}

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Ray Data's way: a batch of places under ``latent``; the lines of the clips, a column for each fact."""
        names = ("clip", "latent", "file", "status", "frames", "hash", "seconds", "error")
        lines = []
        for place in batch["latent"]:
            clip = clips_of([str(place)], self._to)[0]
            lines.append(self.decode(clip, self._options))
        return {name: [line.get(name) for line in lines] for name in names}

    def _go_on(self, _frames: int, _total: int | None) -> None:
        if self._stopped.is_set():
            raise Cancelled("the run was cancelled")


def decode_on_ray(
    place: VAEPlace,
    clips: list[Clip],
    begin: Callable[[Clip], Options],
    *,
    address: str,
    workers: int | None = None,
    chunk_size: int = 4,
    buffer_depth: int = 3,
    decoder: Mode = "auto",
    on_loss: Callable[[str], None] = lambda _reason: None,
) -> Iterator[Line]:
    """Decode ``clips`` on a Ray cluster; yield their lines as they come, in any order.

    Args:
        place: where the VAE is, for every machine of the cluster.
        clips: the clips, those that take longest first.
        begin: called when a clip is handed to an actor; says how its file may be written.
        address: ``auto``: this machine; else the cluster's.
        workers: how many actors; ``None``: one a GPU, without GPUs one a core.
        chunk_size: as of ``async_decode.decode``; ``buffer_depth`` and ``decoder`` likewise.
        on_loss: called with the reason when an actor cannot be started; others decode its clips. Default: nothing.

    Raises:
        DecodeError: Ray is not installed, cannot be reached, or no actor can load the VAE and sees the folders.
    """
    try:
        import ray
    except ImportError as error:
        raise DecodeError(f'ray: {error}; pip install "async-vae-decode[ray]"') from error
    began = not ray.is_initialized()
    if began:
        connect(ray, address)
    given = {clip.name: clip for clip in clips}
    clips = [everywhere(clip) for clip in clips]
    try:
        with signed(clips) as sees:
            how = {"chunk_size": chunk_size, "buffer_depth": buffer_depth, "decoder": decoder, "sees": sees}
            pool = _Pool(ray, place.everywhere(), workers, how, len(clips), on_loss)
            try:
                for line in pool.decode(clips, lambda clip: begin(given[clip.name])):
                    # In the report, places are as the user has written them.
                    yield {**line, **facts_of(given[line["clip"]])}
            except BaseException:
                pool.stop()
                raise
            finally:
                pool.close()
    finally:
        if began:
            ray.shutdown()


class _Pool:
    """The actors, and what each of them has."""

    def __init__(
        self,
        ray: Any,
        place: VAEPlace,
        workers: int | None,
        how: dict[str, Any],
        clips: int,
        on_loss: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        self._ray = ray
        self._on_loss = on_loss
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        count = workers or min(clips, gpus or max(1, int(resources.get("CPU", 1))))
        actor = ray.remote(
            num_gpus=1 if gpus else 0,
            num_cpus=0 if gpus else 1,
            max_restarts=-1,
            # A call of an actor that died fails at once, so that its clip can go to another one.
            max_task_retries=0,
            concurrency_groups={"io": 1},
        )(DecodeActor)
        self._actors = [actor.remote(place, **how) for _ in range(count)]
        #: What an actor is to answer, in this order: clips, or ``None`` for whether it is there.
        self._asked: dict[Any, dict[Any, Clip | None]] = {handle: {} for handle in self._actors}
        self._deaths: dict[str, int] = {}

    def decode(self, clips: list[Clip], begin: Callable[[Clip], Options]) -> Iterator[Line]:
        """Hand out ``clips``; yield their lines."""
        waiting = list(clips)
        options: dict[str, Options] = {}
        for handle in self._actors:
            self._ask(handle)
        while waiting or any(clip is not None for asked in self._asked.values() for clip in asked.values()):
            calls = {call: handle for handle, asked in self._asked.items() for call in asked}
            if not calls:
                raise DecodeError("ray: there is no actor left that could decode")
            # Not without an end: such a wait hears of no signal but Ctrl-C.
            done, _ = self._ray.wait(list(calls), num_returns=1, timeout=5.0)
            if not done:
                continue
            handle = calls[done[0]]
            try:
                answer = self._ray.get(done[0])
            except self._ray.exceptions.RayActorError as error:
                yield from self._died(handle, error, waiting)
            except self._ray.exceptions.RayTaskError as error:
                raise _cause(error) from None
            else:
                if self._asked[handle].pop(done[0]) is not None:
                    yield answer
            self._deal(waiting, options, begin)

    def _deal(self, waiting: list[Clip], options: dict[str, Options], begin: Callable[[Clip], Options]) -> None:
        """Hand clips to every actor that is there: one in hand each, before one that waits.

        Not to the one that has answered alone: when an actor dies, another one may have nothing left to answer. A clip
        that was lost with an actor has its next one for itself, so that a second death leaves no doubt.
        """
        for place in range(IN_FLIGHT):
            for handle, asked in self._asked.items():
                if waiting and len(asked) <= place and None not in asked.values():
                    if asked and any(clip and clip.name in self._deaths for clip in (waiting[0], *asked.values())):
                        continue
                    following = waiting.pop(0)
                    if following.name not in options:
                        options[following.name] = begin(following)
                    self._hand(handle, following, options[following.name])

    def _ask(self, handle: Any) -> None:
        """Have an actor say when it is there; one that is being started again waits for a place on the cluster."""
        self._asked[handle][handle.ready.options(max_task_retries=-1).remote()] = None

    def _hand(self, handle: Any, clip: Clip, options: Options) -> None:
        if self._asked[handle]:
            handle.prefetch.options(concurrency_group="io").remote(clip)
        if clip.name in self._deaths:
            # What the first try has published before it died is ours.
            options = _over(options)
        call = handle.decode.options(name=f"decode {clip.name}").remote(clip, options)
        self._asked[handle][call] = clip

    def _died(self, handle: Any, error: Exception, waiting: list[Clip]) -> Iterator[Line]:
        """An actor died: its clips go back to the front, unless it was the second one that the clip in hand took along.

        All that it was asked has failed with it, but what it had done before. It does one thing after the other, so
        that the first of what has failed was in hand; or it was done, and the answer died with the process.
        """
        lost: list[Clip | None] = []
        for call, clip in self._asked[handle].items():
            self._ray.wait([call], num_returns=1)
            try:
                answer = self._ray.get(call)
            except self._ray.exceptions.RayActorError:
                lost.append(clip)
            except self._ray.exceptions.RayTaskError as failed:
                raise _cause(failed) from None
            else:
                if clip is not None:
                    yield answer
        self._asked[handle] = {}
        in_hand, *others = lost
        if in_hand is None:
            # It never came up: its VAE cannot be loaded, or it may not be started again.
            self._asked.pop(handle)
            if not self._asked:
                raise DecodeError(f"ray: no actor could be started: {reason_of(error)}") from None
            gone, count = len(self._actors) - len(self._asked), len(self._actors)
            self._on_loss(f"{gone} of {count} processes cannot be started: {reason_of(error)}")
            waiting[:0] = [clip for clip in others if clip is not None]
            return
        waiting[:0] = [clip for clip in others if clip is not None]
        # A clip that another actor's death has failed is tried over what its first try has published.
        for clip in waiting[: len(others)]:
            self._deaths.setdefault(clip.name, 0)
        self._deaths[in_hand.name] = self._deaths.get(in_hand.name, 0) + 1
        if self._deaths[in_hand.name] >= DEATHS:
            reason = f"{DEATHS} processes died with this clip in hand: {reason_of(error)}"
            yield {**facts_of(in_hand), "status": "poison", "error": reason}
        else:
            waiting.insert(0, in_hand)
        self._ask(handle)

    def stop(self) -> None:
        """End the clips in hand in order, if they end soon."""
        calls = [call for asked in self._asked.values() for call, clip in asked.items() if clip is not None]
        for handle in self._asked:
            handle.stop.options(concurrency_group="io").remote()
        if calls:
            self._ray.wait(calls, num_returns=len(calls), timeout=GRACE)

    def close(self) -> None:
        """End the actors."""
        for handle in self._actors:
            self._ray.kill(handle)


def _over(options: Options) -> Options:
    return Options(**{**vars(options), "overwrite": True})


def _cause(error: Any) -> BaseException:
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, AsyncDecodeError | OSError) else DecodeError(f"ray: {reason_of(error)}")
