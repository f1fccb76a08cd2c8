"""One writer per run folder, and no lock that outlives its process.

The kernel holds the lock (``flock``; ``msvcrt.locking`` on Windows), so it is gone the moment the
process is, killed or not. A file system that knows no locks (some network mounts) gets a file that
only one process can create; after a kill that one must be deleted by hand, and the error says so.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    # Windows forbids reading a locked byte; one far behind the owner's name leaves that readable.
    _LOCKED_BYTE = 1 << 20

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True
else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


_NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


class FileLock:
    """An exclusive lock on a file, held from :meth:`acquire` to :meth:`release` or to death.

    Args:
        path: the lock file; created when missing. It may stay behind: only the kernel's lock on
            it means anything.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._claim = path.with_name(path.name + ".claim")
        self._descriptor: int | None = None
        self._claimed = False

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def acquire(self) -> bool:
        """Take the lock without waiting.

        Returns:
            False when another process, or another ``FileLock`` of this one, holds it.

        Raises:
            OSError: the lock file cannot be written.
        """
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            taken = self._take(descriptor)
            if taken:
                os.ftruncate(descriptor, 0)
                os.lseek(descriptor, 0, os.SEEK_SET)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        except BaseException:
            os.close(descriptor)
            raise
        if not taken:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self, *, remove: bool = False) -> None:
        """Give the lock back; harmless when not held.

        Args:
            remove: also delete the file. Only right when nobody can want the lock again (a
                finished run): a process that had opened the deleted file would lock nothing.
        """
        if self._descriptor is None:
            return
        os.close(self._descriptor)
        self._descriptor = None
        with contextlib.suppress(OSError):
            if self._claimed:
                self._claim.unlink()
            if remove:
                self.path.unlink()
        self._claimed = False

    def owner(self) -> str:
        """Who holds it, for a message: "process 4711 on worker-3", or "another process"."""
        with contextlib.suppress(OSError):
            return self.path.read_text(encoding="utf-8") or "another process"
        return "another process"

    @property
    def left_behind(self) -> Path | None:
        """The file to delete by hand if its process is dead, where the kernel keeps no locks."""
        return self._claim if self._claim.exists() else None

    def _take(self, descriptor: int) -> bool:
        try:
            return _try_lock(descriptor)
        except OSError as error:
            if error.errno not in _NO_LOCKS_HERE:
                raise
        try:
            os.close(os.open(self._claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            return False
        self._claimed = True
        return True
