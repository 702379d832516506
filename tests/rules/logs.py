"""What every boot prints between its banner and the start of init."""

from __future__ import annotations

__all__ = ["STEPS"]

STEPS = (
    "Dentry cache hash table entries: 32768 (order: 6, 262144 bytes, linear)",
    "Inode-cache hash table entries: 16384 (order: 5, 131072 bytes, linear)",
    "Mount-cache hash table entries: 512 (order: 0, 4096 bytes, linear)",
    "Mountpoint-cache hash table entries: 512 (order: 0, 4096 bytes, linear)",
    "smp: Brought up 1 node, 2 CPUs",
    "SMP: Total of 2 processors activated.",
    "CPU: All CPU(s) started at EL1",
    "Run /init as init process",
)
