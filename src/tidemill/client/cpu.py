"""CPU time of servers on this machine: their process trees, found by the port they listen on; the caller's process."""

from __future__ import annotations

import ipaddress
import socket
import sys
import time
from collections.abc import Iterable

import psutil


def tree_cpu_s(*roots: int) -> float:
    """User and system CPU seconds of whole process trees, the reaped children of their members included; a process
    that is in two of them counts once. Raises `psutil.NoSuchProcess` when a root is gone."""
    members: dict[int, psutil.Process] = {}
    for pid in roots:
        root = psutil.Process(pid)
        members |= {each.pid: each for each in (root, *root.children(recursive=True))}
    total = 0.0
    for process in members.values():
        try:
            times = process.cpu_times()
            reaped = times.children_user + times.children_system  # where the system tells them
            total += reaped + _own_cpu_s(process.pid, times.user + times.system)
        except psutil.NoSuchProcess:
            continue  # it ended in between, and is in its parent's children from now on
    return total


def listeners(host: str, port: int) -> tuple[int, ...]:
    """The processes of this machine that listen on `port`; none when `host` is another machine, or they are not ours
    to see."""
    if not is_here(host):
        return ()
    try:
        found = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return ()
    listening = (each for each in found if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port)
    return tuple(sorted({each.pid for each in listening if each.pid}))


def is_here(host: str) -> bool:
    """Whether `host` is an address of this machine."""
    try:
        addresses = {str(each[4][0]) for each in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return False
    mine = {each.address for several in psutil.net_if_addrs().values() for each in several}
    return any(_is_loopback(each) or each in mine for each in addresses)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def total_of(pids: Iterable[int]) -> float | None:
    """As `tree_cpu_s`; None when there are none, or one is gone."""
    known = tuple(pids)
    try:
        return tree_cpu_s(*known) if known else None
    except psutil.Error:
        return None


def _own_cpu_s(pid: int, otherwise: float) -> float:
    """The kernel's nanosecond clock of another process, where there is one; /proc counts in steps of 10 ms."""
    if not sys.platform.startswith("linux"):
        return otherwise
    try:
        return time.clock_gettime((~pid << 3) | 2)  # CPUCLOCK_SCHED, as clock_getcpuclockid(3) makes it
    except OSError:
        return otherwise
