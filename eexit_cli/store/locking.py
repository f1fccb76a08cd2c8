"""One writer per run folder, and no lock that outlives its process.

The kernel holds the lock, so it is gone the moment the process is, killed or not. A file system
that knows no locks (some network mounts) gets a file that only one process can create; one that a
process killed on another machine left must be deleted by hand, and the error says so.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path

import filelock

_NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


class RunLock:
    """An exclusive lock on a file, held from :meth:`acquire` to :meth:`release` or to death.

    Args:
        path: the lock file; created when missing. It may stay behind: only the kernel's lock on
            it means anything.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._claim = path.with_name(path.name + ".claim")
        self._lock: filelock.BaseFileLock = filelock.FileLock(
            path, blocking=False, thread_local=False, fallback_to_soft=False
        )

    @property
    def held(self) -> bool:
        return self._lock.is_locked

    def acquire(self) -> bool:
        """Take the lock without waiting.

        Returns:
            False when another process, or another lock of this one, holds it.

        Raises:
            OSError: the lock file cannot be written.
        """
        try:
            try:
                self._lock.acquire()
            except OSError as error:
                if error.errno not in _NO_LOCKS_HERE:
                    raise
                self._lock = filelock.SoftFileLock(self._claim, blocking=False, thread_local=False)
                self._lock.acquire()
        except filelock.Timeout:
            return False
        # Windows lets nobody write to a locked file; the owner then has no name.
        with contextlib.suppress(PermissionError):
            self.path.write_text(f"process {os.getpid()} on {socket.gethostname()}", "utf-8")
        return True

    def release(self, *, remove: bool = False) -> None:
        """Give the lock back; harmless when not held.

        Args:
            remove: also delete the file. Only right when nobody can want the lock again (a
                finished run): a process that had opened the deleted file would lock nothing.
        """
        if not self.held:
            return
        self._lock.release()
        if remove:
            with contextlib.suppress(OSError):
                self.path.unlink()

    def owner(self) -> str:
        """Who holds it, for a message: "process 4711 on worker-3", or "another process"."""
        with contextlib.suppress(OSError):
            return self.path.read_text(encoding="utf-8") or "another process"
        return "another process"

    @property
    def left_behind(self) -> Path | None:
        """The file to delete by hand if its process is dead, where the kernel keeps no locks."""
        return self._claim if self._claim.exists() else None
