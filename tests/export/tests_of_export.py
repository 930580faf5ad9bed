"""What the tests of exports share: the command, in a process of its own."""

import os
import subprocess
import sys


def command(*arguments, room=None, cwd=None, **env):
    """`regard ARGUMENTS`. room: bytes that a file may have there; env: what its environment has besides."""

    def little_room():
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    done = subprocess.run(
        [sys.executable, "-m", "regard", *map(str, arguments)],
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **env},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=None if room is None else little_room,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done
