"""The distributed core: pure and deterministic. Time, chance, sockets and disks are handed in from outside."""
