"""Small ICC profiles, written by hand: gray of any gamma, RGB of any primaries, a printer's CMYK."""

import struct


def profile(space: bytes, tags: dict[bytes, bytes], connection: bytes = b"XYZ ") -> bytes:
    tags = {b"desc": _description(), b"wtpt": _xyz(0.9642, 1.0, 0.8249), **tags}
    place, table, content = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", place + len(content), len(data))
        content += data
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    header = struct.pack(">I4sI4s4s4s", place + len(content), b"test", 0x02400000, kind, space, connection)
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    header += struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1.0, 0.8249)))
    return header.ljust(128, b"\0") + table + content


def gray(gamma: float) -> bytes:
    return profile(b"GRAY", {b"kTRC": _gamma(gamma)})


def rgb(red, green, blue, gamma: float = 2.2) -> bytes:
    """A monitor whose primaries are these XYZ, which add up to the white point."""
    primaries = {b"rXYZ": _xyz(*red), b"gXYZ": _xyz(*green), b"bXYZ": _xyz(*blue)}
    return profile(b"RGB ", primaries | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _gamma(gamma)))


def cmyk(paper: tuple[int, int, int] = (255, 128, 128)) -> bytes:
    """A press in which any ink at all gives mid-gray, and blank paper is ``paper`` in Lab of 8 bits."""
    grid = [paper if not any(inks) else (128, 128, 128) for inks in _corners()]
    identity = b"".join(bytes(range(256)) for _ in range(4))
    table = b"mft1" + b"\0" * 4 + bytes([4, 3, 2, 0])
    table += struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table += identity + bytes(v for entry in grid for v in entry) + identity[: 3 * 256]
    return profile(b"CMYK", {b"A2B0": table, b"A2B1": table, b"A2B2": table}, b"Lab ")


def _corners():
    return [(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]


def _xyz(*values: float) -> bytes:
    return b"XYZ " + b"\0" * 4 + struct.pack(">3i", *(round(v * 65536) for v in values))


def _gamma(gamma: float) -> bytes:
    return b"curv" + b"\0" * 4 + struct.pack(">IH", 1, round(gamma * 256))


def _description() -> bytes:
    return b"desc" + b"\0" * 4 + struct.pack(">I", 5) + b"test\0" + b"\0" * 78


ADOBE = rgb((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
