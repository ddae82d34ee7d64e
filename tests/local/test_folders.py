from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from daemon.local.folders import new_data_folder
from daemon.local.server import free_port, is_free


def test_a_folder_whose_owner_was_killed_is_deleted_by_the_next(tmp_path: Path) -> None:
    killed = (
        "import os, sys; from pathlib import Path; from daemon.local.folders import *\n"
        "print(new_data_folder('x', Path(sys.argv[1])).path, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", killed, str(tmp_path)], capture_output=True, text=True, check=False
    )
    left = Path(done.stdout.strip())
    assert left.is_dir()
    mine, another = new_data_folder("x", tmp_path), new_data_folder("x", tmp_path)
    assert not left.exists()
    assert mine.path.is_dir()
    assert another.path.is_dir()
    mine.unlock()
    another.unlock()


def test_ports_are_below_those_the_kernel_gives_to_clients() -> None:
    port = free_port()
    assert is_free(port)
    ephemeral = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if ephemeral.exists():
        assert port < int(ephemeral.read_text().split()[0])
