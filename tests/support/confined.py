"""Processes with less than a machine has: a small or read-only /dev/shm, a full disk, another user.

A private mount namespace puts a file system of our own over a directory, for one process and its children only. It
needs root, or a kernel that lets users have namespaces of their own.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

NOBODY = 65534


def mounted(directory: str, options: str, command: Sequence[str]) -> list[str]:
    """Return the words that run `command` with a tmpfs of these mount options over `directory`."""
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    mount = f"mount -t tmpfs -o {options} none {shlex.quote(directory)}"
    return [*unshare, "sh", "-c", f'{mount} && exec "$@"', "sh", *command]


def as_user(
    uid: int, groups: Sequence[int], command: Sequence[str], *, setup: str = "true", has_own_pids: bool = False
) -> list[str]:
    """Return the words that run `command` as that user and group, with more groups; for root only.

    Python may lie in a home directory that only root can enter; in the mount namespace of the process others can enter
    it, and nothing else is in it. `setup` is run before, there and as root.
    """
    home, python = shlex.quote(str(Path.home())), shlex.quote(sys.base_prefix)
    open_home = "true"
    if Path.home() in Path(sys.base_prefix).parents:
        open_home = (
            f"d=$(mktemp -d) && mount --bind {python} $d && mount -t tmpfs -o mode=755 none {home} && "
            f"mkdir -p {python} && mount --bind $d {python} && umount $d && rmdir $d"
        )
    listed = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    become = f"exec setpriv --reuid={uid} --regid={uid} {listed} --"
    shell = f'umask 022 && {open_home} && {setup} && umask 077 && cd / && {become} "$@"'
    return ["unshare", "--mount", *(["--pid", "--fork"] if has_own_pids else []), "sh", "-c", shell, "sh", *command]


def with_small_shm(kib: int, *command: str) -> list[str]:
    """Return the words that run `command` with a /dev/shm of that size."""
    return mounted("/dev/shm", f"size={kib}k,mode=1777", command)


def limited(option: str, value: int, *command: str) -> list[str]:
    """Return the words that run `command` under `ulimit OPTION VALUE`."""
    return ["sh", "-c", f'ulimit {option} {value} && exec "$@"', "sh", *command]


def script(text: str, *arguments: str) -> list[str]:
    """Return the words that run a script of Python."""
    return [sys.executable, "-c", text, *arguments]


def finished(words: Sequence[str]) -> str:
    """Run a script that has to succeed, and return what it printed."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def forked(work: Callable[[], object], *, uid: int | None = None) -> int:
    """Run `work` in a forked child, perhaps as another user; return how it ended as `waitpid` says it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if uid is not None:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]
