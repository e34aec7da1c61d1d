# SPDX-License-Identifier: Apache-2.0
"""An update that undoes itself: beside the running version, checked, switched, watched.

    check -> take -> install -> warm -> stop -> back up -> migrate -> switch -> watch -> keep
             `-- the old version runs -----'`------------ undone by rolling back -------'

Before each step the journal names it, on the disk itself. Whatever ends the update, and be it a
power cut, `recover` finds the name and undoes what may have been done: up to `warming` it removes
the new version; later it leads `current` back to the old one, and puts settings and database back
if the new version changed them. Each undoing may be cut off in turn and is begun anew.

Nobody but root can change what is installed: a bundle's files are checked as they are copied to
where only root can write, and only the copy is used.
"""

import logging
import os
import platform
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from pipeline.box import backup
from pipeline.box.files import remove_file, replace_file, replace_link
from pipeline.box.health import Limits, Seen, cameras_with_frames, look_at, watch
from pipeline.box.installed import Installed
from pipeline.box.journal import BEFORE_STOPPING, Journal, Step, UpdateState, alone
from pipeline.box.layout import Layout
from pipeline.box.manager import ServiceManager
from pipeline.box.manifest import (
    MANIFEST,
    Manifest,
    parse_manifest,
    read_manifest_bytes,
    take_files,
)
from pipeline.box.rights import as_service
from pipeline.box.settings import read_hints, weights_in
from pipeline.box.signing import verify_signature
from pipeline.errors import BundleRefused, UpdateFailed

logger = logging.getLogger(__name__)

_BASELINE_S: Final = 10.0
_ENDING: Final = (signal.SIGINT, signal.SIGTERM)
_RECOVER_WAIT_S: Final = 60.0
_ROOM: Final = 5
"""Bytes on the disk for each byte of a bundle: it is copied, unpacked and compiled."""
_COPIES: Final = 2
"""Of the database: the backup, and what a rollback puts back."""


class Updater:
    """Updates one box."""

    def __init__(self, layout: Layout, manager: ServiceManager, limits: Limits) -> None:
        self._layout, self._manager, self._limits = layout, manager, limits
        self._journal = Journal(layout.update_journal)

    def update(self, bundle: Path, *, signed: bool) -> str:
        """Go over to the version of a bundle; returns its name.

        Raises:
            BundleRefused: the bundle is not sound, not signed, or not for this box.
            UpdateFailed: the new version could not be brought to run well; the old one runs.
            ModelError: the settings of this box cannot be read.
        """
        if not self._layout.versions.is_dir():
            raise UpdateFailed(f"{self._layout.versions}: no box is installed; run install.sh")
        with alone(self._layout.update_lock) as lock:
            if lock is None:
                raise UpdateFailed(f"{self._layout.update_lock}: another update is at work")
            self._undo_cut_off(lock, restart=True)
            content = read_manifest_bytes(bundle)
            manifest = check_manifest(bundle, content, self._layout.trusted if signed else None)
            state = self._begin(manifest)
            new = Installed(self._layout, manifest.version, lock)
            with self._taken(bundle, content, manifest) as taken:
                self._prepare(state, new, taken, manifest)
            self._switch(state, new)
            self._keep(state)
        return manifest.version

    def recover(self, *, restart: bool) -> str | None:
        """Undo an update that was cut off; returns the version it would have been, if there is one.

        Args:
            restart: Whether to stop and start the service too. Not where it is just being started.

        Raises:
            UpdateFailed: it cannot be undone now.
        """
        with alone(self._layout.update_lock, _RECOVER_WAIT_S if restart else 0.0) as lock:
            if lock is None:
                if restart:
                    raise UpdateFailed(f"{self._layout.update_lock}: an update is at work")
                return None  # it is the one that starts the service, and watches over it
            return self._undo_cut_off(lock, restart=restart)

    def _begin(self, manifest: Manifest) -> UpdateState:
        layout = self._layout
        old, new = _target(layout.current), manifest.version
        if old is None:
            raise UpdateFailed(f"{layout.current}: leads to no version; run install.sh")
        if old == new:
            raise BundleRefused(f"{new} runs already; there is nothing to update")
        is_there = (layout.version(new) / MANIFEST).exists()
        needed = 0 if is_there else _ROOM * sum(entry.bytes for entry in manifest.files.values())
        database = read_hints(layout).database
        needed += _COPIES * database.stat().st_size if database.exists() else 0
        free = shutil.disk_usage(layout.versions).free
        if free < needed:
            raise UpdateFailed(
                f"{layout.versions}: {free >> 20} MiB are free, and {needed >> 20} may be "
                "needed; make room"
            )
        return UpdateState(step="installing", old=old, new=new, previous=_target(layout.previous))

    @contextmanager
    def _taken(self, bundle: Path, content: bytes, manifest: Manifest) -> Iterator[Path]:
        """A copy of the bundle that is what its manifest lists, for as long as it is needed."""
        taken = self._layout.taken
        shutil.rmtree(taken, ignore_errors=True)
        try:
            taken.mkdir(mode=0o700)
            take_files(bundle, manifest, taken)
            (taken / MANIFEST).write_bytes(content)
            yield taken
        except OSError as fault:
            raise UpdateFailed(f"{taken}: {fault}; nothing was changed") from None
        finally:
            shutil.rmtree(taken, ignore_errors=True)

    def _prepare(
        self, state: UpdateState, new: Installed, bundle: Path, manifest: Manifest
    ) -> None:
        """Install and warm beside the version that runs; a failure leaves nothing."""
        was_there = new.is_whole
        try:
            self._enter(state, "installing")
            self._remove_backups(state)
            new.make(bundle, manifest)
            self._enter(state, "warming")
            new.call_beside("doctor")
            seen = look_at(read_hints(self._layout).http)
            new.call_beside("warm", str(self._layout.settings), *self._warming(new, seen))
        except BaseException as fault:  # noqa: BLE001 - whatever ends it, nothing is left
            if not was_there:
                new.remove()
            self._journal.clear()
            raise UpdateFailed(f"{state.new}: {_why(fault)}; {state.old} runs on") from None

    def _warming(self, new: Installed, seen: Seen) -> list[str]:
        """Arguments of `warm`: the shapes in use, and weights that come with a version."""
        shapes = [f"--shape={'x'.join(map(str, shape))}" for shape in seen.shapes]
        weights = read_hints(self._layout).weights
        if weights and Path(weights).parent == self._layout.current / "weights":
            theirs = weights_in(new.folder / "weights", Path(weights).name)
            shapes.append(f"--set=model.weights={theirs}")
        return shapes

    def _switch(self, state: UpdateState, new: Installed) -> None:
        """Stop the old version, start the new one, watch it; what fails is rolled back."""
        layout = self._layout
        hints = read_hints(layout)
        cameras = cameras_with_frames(self._look(), _BASELINE_S, self._limits.poll_s)
        try:
            self._enter(state, "stopping")
            self._manager.stop()
            self._enter(state, "backing-up")
            backup.keep_settings(layout.backups / state.new, layout.settings)
            kept = layout.database_backups / state.new
            as_service(partial(backup.keep_database, kept, hints.database))
            self._enter(state, "migrating")
            self._migrate(new)
            self._enter(state, "switching")
            replace_link(layout.previous, state.old)
            replace_link(layout.current, state.new)
            self._enter(state, "watching")
            self._manager.start()
            watch(self._look(), self._manager.failure, self._limits, cameras)
        except BaseException as fault:  # noqa: BLE001 - whatever ends it, the old version must run
            logger.warning("%s: %s; going back to %s", state.new, _why(fault), state.old)
            self._roll_back(state, new, restart=True)
            raise UpdateFailed(f"{state.new}: {_why(fault)}; went back to {state.old}") from None

    def _migrate(self, new: Installed) -> None:
        """Have the new version bring the database up to date and say how it wants its settings."""
        settings = self._layout.settings
        wanted = new.call("migrate", str(settings)).encode()
        if wanted and wanted != settings.read_bytes():
            replace_file(settings, wanted)

    def _keep(self, state: UpdateState) -> None:
        """The new version has shown itself: the update is over, and what is old goes."""
        self._journal.clear()
        kept = {state.old, state.new}
        for folder in self._layout.versions.iterdir():
            is_version = not folder.is_symlink() and (folder / "venv").is_dir()
            if is_version and folder.name not in kept:
                logger.info("%s: removed", folder.name)
                shutil.rmtree(folder, ignore_errors=True)
        backup.remove_other_backups(self._layout.backups / state.new)
        as_service(partial(backup.remove_other_backups, self._layout.database_backups / state.new))

    def _undo_cut_off(self, lock: int, *, restart: bool) -> str | None:
        shutil.rmtree(self._layout.taken, ignore_errors=True)
        state = self._journal.read()
        if state is None:
            return None
        new = Installed(self._layout, state.new, lock)
        if state.step in BEFORE_STOPPING:
            if state.new not in (_target(self._layout.current), state.previous):
                new.remove()
            self._journal.clear()
        else:
            self._roll_back(state, new, restart=restart)
        logger.warning("the update to %s was cut off at %s and is undone", state.new, state.step)
        return state.new

    def _roll_back(self, state: UpdateState, new: Installed, *, restart: bool) -> None:
        """Go back and start the old version, whatever else fails on the way.

        Raises:
            UpdateFailed: something did; the journal stays, and the next recovery tries it again.
        """
        with _uninterrupted():
            steps: list[Callable[[], None]] = [
                partial(self._enter, state, "rolling-back"),
                *([self._manager.stop] if restart else []),
                partial(self._lead_back, state),
                partial(self._put_back, state),
                *([self._manager.start] if restart else []),
            ]
            num_failed = sum(not _succeeds(step) for step in steps)
            if num_failed:
                raise UpdateFailed(
                    f"{state.old} is not wholly back, see above; when the cause is gone run: "
                    "sightline update --recover"
                )
            if state.new != state.previous:
                # At a start of the service cameras wait; a later update removes the rest.
                (new.remove if restart else new.disown)()
            self._journal.clear()
            self._remove_backups(state)

    def _lead_back(self, state: UpdateState) -> None:
        replace_link(self._layout.current, state.old)
        if state.previous is None:
            remove_file(self._layout.previous)
        else:
            replace_link(self._layout.previous, state.previous)

    def _put_back(self, state: UpdateState) -> None:
        """Settings first: the old version knows where its own name the database."""
        layout = self._layout
        backup.restore_settings(layout.backups / state.new, layout.settings)
        kept, database = layout.database_backups / state.new, read_hints(layout).database
        as_service(partial(backup.restore_database, kept, database, state.new))

    def _remove_backups(self, state: UpdateState) -> None:
        backup.remove_backup(self._layout.backups / state.new)
        as_service(partial(backup.remove_backup, self._layout.database_backups / state.new))

    def _enter(self, state: UpdateState, step: Step) -> None:
        logger.info("%s: %s", state.new, step)
        self._journal.enter(msgspec.structs.replace(state, step=step))

    def _look(self) -> Callable[[], Seen]:
        http = read_hints(self._layout).http
        return lambda: look_at(http)


def check_manifest(bundle: Path, content: bytes, trusted: Path | None) -> Manifest:
    """The manifest of a bundle for this machine; signed, where trusted keys are given.

    Args:
        bundle: Where it lies.
        content: The manifest as it was read.
        trusted: Folder of keys.

    Raises:
        BundleRefused: it is none, or not for this machine, or not signed.
        ConfigError: a trusted key cannot be read.
    """
    if trusted is not None:
        logger.info("signed by %s", verify_signature(bundle, content, trusted))
    manifest = parse_manifest(content, bundle / MANIFEST)
    if manifest.arch != platform.machine():
        raise BundleRefused(
            f"{bundle}: made for {manifest.arch}, and this machine is {platform.machine()}; bring "
            "the bundle for it"
        )
    return manifest


def _succeeds(step: Callable[[], None]) -> bool:
    """Do it, and say if that failed."""
    try:
        step()
    except Exception as fault:  # noqa: BLE001 - the steps after it are done all the same
        logger.error("while going back: %s", fault)
        return False
    return True


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Have signals that would end this do nothing.

    By a handler: signals that are ignored stay so in what is started here, the service among it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: None) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _why(fault: BaseException) -> str:
    return "interrupted" if isinstance(fault, KeyboardInterrupt) else str(fault) or repr(fault)


def _target(link: Path) -> str | None:
    """The version that a link leads to."""
    try:
        return Path(os.readlink(link)).name  # noqa: PTH115 - the name is wanted, not the path
    except OSError:
        return None
