"""Processes that see each other over a network only, each in a namespace of its own, as if on machines of their own."""

import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests.sketches.launch import ROOT, environment

# All in a namespace of its own in turn, so that everything is gone when the script ends, however it does.
UNSHARE = ["unshare", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-e", "-c"]


def script(workers: int, rate_mbit: float | None) -> str:
    """Sets up a bridge, and for each worker a namespace that has a link to it, with a limit of its sending rate."""
    lines = [
        "mount -t tmpfs tmpfs /run",
        "ip link set lo up",
        "ip link add bridge type bridge",
        "ip link set bridge up",
    ]
    for rank in range(workers):
        lines += [
            f"ip netns add w{rank}",
            f"ip link add port{rank} type veth peer name wire netns w{rank}",
            f"ip link set port{rank} master bridge up",
            f"ip -n w{rank} addr add 10.77.0.{rank + 1}/24 dev wire",
            f"ip -n w{rank} link set lo up",
            f"ip -n w{rank} link set wire up",
        ]
        if rate_mbit is not None:
            limit = f"tbf rate {rate_mbit}mbit burst 256kb latency 400ms"
            lines.append(f"ip netns exec w{rank} tc qdisc add dev wire root {limit}")
    return "\n".join(lines)


@cache
def namespaces_work(rate_mbit: float | None = None) -> bool:
    """Whether this machine allows all that."""
    try:
        return subprocess.run([*UNSHARE, script(2, rate_mbit)], capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def across_namespaces(
    workers: int, program: str | Path, folder: str, *arguments: str, rate_mbit: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program once in each namespace; what each has put on the wire is in ``wire<rank>.txt`` in the folder."""
    command = shlex.join([sys.executable, str(Path(__file__).parent / program), folder, *arguments])
    lines = [script(workers, rate_mbit), f"export WORLD_SIZE={workers} MASTER_ADDR=10.77.0.1 MASTER_PORT=29500"]
    lines += ["export GLOO_SOCKET_IFNAME=wire", "codes=0"]
    for rank in range(workers):
        lines.append(f"RANK={rank} ip netns exec w{rank} {command} & pid{rank}=$!")
    lines += [f"wait $pid{rank} || codes=1" for rank in range(workers)]
    for rank in range(workers):
        wire = shlex.quote(str(Path(folder) / f"wire{rank}.txt"))
        lines.append(f"ip netns exec w{rank} cat /sys/class/net/wire/statistics/tx_bytes > {wire}")
    lines.append("exit $codes")
    return subprocess.run(
        [*UNSHARE, "\n".join(lines)], capture_output=True, text=True, timeout=240, env=environment(), cwd=ROOT
    )
