"""Damage to bytes and text, as broken copies, bad disks, other programs and attackers leave it."""

from __future__ import annotations

import random

EXTREME = (b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\xc0\x7f",
           b"\x01\x00\x00\x00", b"\x00\x00\x80\x7f")  # fmt: skip
"""Little-endian 0, -1, the largest int32, a float32 NaN, 1 and infinity."""


def mutate_bytes(content: bytes, chance: random.Random) -> bytes:
    """Return the content with one to four places changed, or cut, repeated or emptied."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        if not changed:
            return b""
        place = chance.randrange(len(changed))
        kind = chance.choice(
            ("flip", "flip", "extreme", "extreme", "fill", "cut", "repeat", "drop")
        )
        length = chance.randint(1, max(1, min(64, len(changed) - place)))
        if kind == "flip":
            changed[place] ^= 1 << chance.randrange(8)
        elif kind == "extreme":
            changed[place : place + 4] = chance.choice(EXTREME)
        elif kind == "fill":
            changed[place : place + length] = bytes(chance.randrange(256) for _ in range(length))
        elif kind == "word":
            changed[place : place + chance.randrange(6)] = chance.choice(WORDS).encode()
        elif kind == "cut":
            del changed[chance.randrange(len(changed) // 2, len(changed)) :]
        elif kind == "repeat":
            changed[place:place] = changed[place : place + length]
        else:
            del changed[place : place + length]
    return bytes(changed)


WORDS = ("", "null", "~", "-1", "0", "1e400", ".nan", "[]", "{}", "[[[[]]]]", "true", "é\u2028",
         "a" * 300, "../../etc", "*x", "&x [*x]", "!!python/object:os.system {}", "'", '"', "\t",
         "2026-01-01", "0x7fffffffffffffff", "9" * 40, "\x00", "{{ 7 * 7 }}")  # fmt: skip
"""What people and programs put where a value is expected."""


def mutate_text(text: str, chance: random.Random) -> str:
    """Return the text with one to three lines, words or characters changed."""
    lines = text.splitlines()
    for _ in range(chance.randint(1, 3)):
        if not lines:
            return ""
        place = chance.randrange(len(lines))
        line = lines[place]
        kind = chance.choice(("word", "word", "value", "drop", "repeat", "swap", "character"))
        if kind == "word" and line.split():
            lines[place] = line.replace(chance.choice(line.split()), chance.choice(WORDS), 1)
        elif kind == "value":
            separator = next((s for s in (": ", ",", "=") if s in line), None)
            head = line if separator is None else line.partition(separator)[0]
            lines[place] = f"{head}{separator or ' '}{chance.choice(WORDS)}"
        elif kind == "drop":
            del lines[place]
        elif kind == "repeat":
            lines.insert(place, line)
        elif kind == "swap":
            other = chance.randrange(len(lines))
            lines[place], lines[other] = lines[other], line
        elif line:
            at = chance.randrange(len(line))
            lines[place] = line[:at] + chance.choice("\"'{}[]:,#&*!|>%@`\\ \t") + line[at + 1 :]
    return "\n".join(lines) + "\n"
