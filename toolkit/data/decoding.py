"""Find out in which encoding a text file was saved, as spreadsheets save them, and decode it."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from toolkit.utils.console import say
from toolkit.utils.errors import InputError

UTF_8, UTF_8_BOM = "utf-8", "utf-8-sig"
_BOMS = {
    codecs.BOM_UTF8: UTF_8_BOM,
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark is its beginning
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_WESTERN = "cp1252"
_START = 4096
"""Bytes in which UTF-16 without a mark is looked for."""
SAMPLE = 4 * 2**20
"""Bytes from which the encoding of a larger file is guessed."""
_PART = 2**20
"""Bytes that are decoded at a time."""
_SHOWN = 3
"""Lines that are shown with a guess."""


def decode(file: Path, raw: bytes, encoding: str | None = None) -> tuple[str, str]:
    """Return the text of `raw`, the content of `file`, and its encoding.

    A byte order mark, UTF-8 and UTF-16 are recognized. Any other encoding is guessed by charset-normalizer, and the
    guess is printed with lines in which a wrong one would show.

    encoding: decode with this one instead.
    Raises: InputError if the bytes do not fit the encoding or none fits them.
    """
    if encoding is not None:
        return _decode_as(file, raw, encoding), codecs.lookup(encoding).name
    for mark, name in _BOMS.items():
        if raw.startswith(mark):
            return _decode_as(file, raw, name), name
    wide = _utf_16_without_mark(raw[:_START])
    if wide is not None:
        return _decode_as(file, raw, wide), wide
    try:
        return raw.decode(UTF_8), UTF_8
    except UnicodeDecodeError as error:
        return _guessed(file, raw, error.start)


def encoding_of(file: Path, encoding: str | None = None) -> str:
    """Return the encoding of a file as `decode` does, without reading it at once; all of it fits the encoding.

    In a file of more than SAMPLE bytes, another encoding than UTF-8 and UTF-16 is guessed from the SAMPLE bytes that
    follow the first line that is not UTF-8.
    """
    with file.open("rb") as stream:
        start = stream.read(SAMPLE + 1)
        if len(start) <= SAMPLE:
            return decode(file, start, encoding)[1]
    known = next((name for mark, name in _BOMS.items() if start.startswith(mark)), None)
    known = encoding or known or _utf_16_without_mark(start[:_START])
    misfit = _first_misfit(file, known or UTF_8)
    if misfit is not None and known is not None:
        raise InputError(f"{file}: line {misfit[0]} is not {known}; save the file as UTF-8")
    if misfit is not None:
        line, place = misfit
        with file.open("rb") as stream:
            stream.seek(place)
            sample = stream.read(SAMPLE)
        guess = _guessed(file, sample[: sample.rfind(b"\n") + 1] or sample, 0, line)[1]
        if (misfit := _first_misfit(file, guess)) is None:
            return guess
        raise InputError(f"{file}: line {misfit[0]} is not {guess}; save the file as UTF-8")
    return codecs.lookup(known or UTF_8).name


def text_lines(file: Path, encoding: str) -> Iterator[str]:
    """Yield the lines of a text file, which end at a line feed."""
    with file.open(encoding=encoding, newline="\n") as stream:
        for line in stream:
            yield line.removesuffix("\n")


def _first_misfit(file: Path, encoding: str) -> tuple[int, int] | None:
    """Return the number of the first line that is not in this encoding, and the byte at which it begins."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line, place, line_start = 1, 0, 0  # of the bytes that are decoded
    with file.open("rb") as stream:
        while True:
            part = stream.read(_PART)
            try:
                decoder.decode(part, final=not part)
            except UnicodeDecodeError as error:
                begun = len(error.object) - len(part)  # bytes of a character that began in the part before
                good = max(error.start - begun, 0)
                newline = part.rfind(b"\n", 0, good)
                return line + part.count(b"\n", 0, good), line_start if newline < 0 else place + newline + 1
            if not part:
                return None
            newline = part.rfind(b"\n")
            line_start = line_start if newline < 0 else place + newline + 1
            line, place = line + part.count(b"\n"), place + len(part)


def known_encoding(name: str) -> bool:
    """Return whether Python can decode text in this encoding."""
    try:
        return codecs.lookup(name)._is_text_encoding
    except LookupError:
        return False


def refuse_unknown(encoding: str | None) -> None:
    """Raise InputError if the value of --encoding is no encoding."""
    if encoding is not None and not known_encoding(encoding):
        raise InputError(f"--encoding {encoding}: no such encoding; give one such as utf-8, utf-16 or cp1252")


def _decode_as(file: Path, raw: bytes, encoding: str) -> str:
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError(f"{file}: line {line} is not {encoding}; save the file as UTF-8") from None


def _utf_16_without_mark(raw: bytes) -> str | None:
    """Return the encoding if every second byte of most characters is zero, as of Latin letters in UTF-16."""
    zeros = [raw[place::2].count(0) * 2 / max(len(raw), 1) for place in (0, 1)]
    if max(zeros) < 0.3 or min(zeros) > 0.1:
        return None
    return "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"


def _guessed(file: Path, raw: bytes, first: int, first_line: int = 1) -> tuple[str, str]:
    """Guess the encoding. first: place of the first byte that is not UTF-8. first_line: where `raw` begins."""
    from charset_normalizer import from_bytes

    best = from_bytes(raw).best()
    line = raw[:first].count(b"\n") + first_line
    if best is None or b"\x00" in raw:
        raise InputError(f"{file}: line {line} is not UTF-8; save the file as UTF-8")
    text, encoding = raw.decode(best.encoding), best.encoding
    if encoding != _WESTERN and text == raw.decode(_WESTERN, errors="replace"):
        encoding = _WESTERN  # several encodings have the same letters; this is the usual one of them
    shown = _where_a_guess_shows(text, first_line)
    say(f"{file}: is not UTF-8; read as {encoding}, a guess: {shown}; if that is wrong, save the file as UTF-8")
    return text, encoding


def _where_a_guess_shows(text: str, first_line: int) -> str:
    """Return the first lines with words that are not ASCII, and these words."""
    shown = []
    for number, line in enumerate(text.split("\n"), start=first_line):
        words = [word for word in re.findall(r"\S+", line) if not word.isascii()]
        if words:
            shown.append(f"line {number} has {_quoted(words[0])}")
        if len(shown) == _SHOWN:
            break
    return ", ".join(shown)


def _quoted(word: str) -> str:
    """Return a word in quotes, cut to a length for one line, with control characters as escapes."""
    return repr(word if len(word) <= 30 else f"{word[:29]}…")
