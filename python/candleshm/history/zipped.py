"""One CSV file out of a zip of unknown origin. Pure.

The exchange packs one file, without a directory. A mirror may have packed it again, with a directory, with files of its
desktop, and with a name of unknown encoding. Its bytes may be damaged, or malicious: the standard
library reads what the zip lists, everything else is done here, so that nothing is unpacked before it was measured.
"""

from __future__ import annotations

import io
import struct
import unicodedata
import zipfile
import zlib

from candleshm.errors import BadResponse

__all__ = ["MEMBERS_MAX", "ZIP_BYTES_MAX", "csv_of"]

ZIP_BYTES_MAX = 64 * 1024 * 1024
MEMBERS_MAX = 1000
# Encodings of names without the UTF-8 flag: Info-ZIP writes UTF-8, Windows in China writes GBK. The standard library
# reads such names as the code page of the first PCs.
UNSTATED, ENCODINGS = "cp437", ("utf-8", "gb18030")
IS_UTF8, IS_ENCRYPTED = 0x800, 0x1 | 0x40 | 0x2000
LISTED = b"PK\x01\x02"
LOCAL = struct.Struct("<4s5H3I2H")
JUNK = frozenset({"thumbs.db", "desktop.ini"})


def csv_of(zipped: bytes, name: str, size_bytes_max: int) -> bytes:
    """Return the content of the CSV file `name`, wherever in the zip it lies. Raises BadResponse.

    Beside it there may be directories, and files that are no CSV. A second CSV file would leave open which is meant.
    """
    if len(zipped) > ZIP_BYTES_MAX:
        raise BadResponse(f"it has {len(zipped)} bytes, more than the limit of {ZIP_BYTES_MAX}")
    member = _member(zipped, name)
    if member.file_size > size_bytes_max:
        raise BadResponse(f"it unpacks to {member.file_size} bytes, more than the limit of {size_bytes_max}")
    return _unpacked(zipped, member)


def _member(zipped: bytes, name: str) -> zipfile.ZipInfo:
    if (count := zipped.count(LISTED)) > MEMBERS_MAX:
        raise BadResponse(f"it cannot be unpacked: it lists {count} files, more than the limit of {MEMBERS_MAX}")
    try:
        with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
            members = archive.infolist()
    except Exception as error:  # Of damaged bytes it raises what its parts raise, and more with every release.
        raise BadResponse(f"it cannot be unpacked: {type(error).__name__}: {error}") from None
    csv_files = [(member, names) for member in members if _is_csv(names := _names(member))]
    wanted = _folded(name)
    if len(csv_files) != 1 or wanted not in map(_folded, map(_last_part, csv_files[0][1])):
        held = ", ".join(names[0] for _, names in csv_files[:3]) or "nothing of the kind"
        raise BadResponse(f"it does not hold {name} and nothing else, but `{held[:200]}`")
    return csv_files[0][0]


def _names(member: zipfile.ZipInfo) -> list[str]:
    """Return what a member may be called, the likeliest first."""
    if member.flag_bits & IS_UTF8:
        return [member.orig_filename]
    raw, names = member.orig_filename.encode(UNSTATED, "replace"), []
    for encoding in ENCODINGS:
        try:
            names.append(raw.decode(encoding))
        except UnicodeDecodeError:
            continue
    return [*names, member.orig_filename]


def _is_csv(names: list[str]) -> bool:
    """Return whether this is a CSV file, not a directory, and none of the files that desktops leave everywhere."""
    *above, last = _parts(names[0])
    is_junk = last.startswith(".") or last.lower() in JUNK or "__MACOSX" in above
    return last.lower().endswith(".csv") and not is_junk


def _last_part(name: str) -> str:
    """Return a name without its directories; nothing for one that leads out of where it is unpacked."""
    parts = _parts(name)
    return "" if ".." in parts else parts[-1]


def _parts(name: str) -> list[str]:
    return name.replace("\\", "/").split("/")


def _folded(name: str) -> str:
    # macOS takes letters and their marks apart. No two files of the archive differ in their case alone.
    return unicodedata.normalize("NFC", name).casefold()


def _unpacked(zipped: bytes, member: zipfile.ZipInfo) -> bytes:
    """Unpack one member: as many bytes as it announces and no more, and of the checksum that it announces."""
    start = member.header_offset + LOCAL.size
    if not LOCAL.size <= start <= len(zipped):
        raise BadResponse("it cannot be unpacked: the position of its file lies outside the archive")
    signature, _, flags, method, *_, name_bytes, extra_bytes = LOCAL.unpack_from(zipped, member.header_offset)
    if signature != b"PK\x03\x04" or method != member.compress_type:
        raise BadResponse("it cannot be unpacked: its directory and its file contradict each other")
    if (flags | member.flag_bits) & IS_ENCRYPTED:
        raise BadResponse("it cannot be unpacked: it is encrypted")
    # A name whose length is damaged swallows the entries behind it, and would give the content of another file.
    encoding = "utf-8" if member.flag_bits & IS_UTF8 else UNSTATED
    if zipped[start : start + name_bytes] != member.orig_filename.encode(encoding):
        raise BadResponse("it cannot be unpacked: its directory and its file differ in their name")
    start += name_bytes + extra_bytes
    packed = memoryview(zipped)[start : start + member.compress_size]
    if len(packed) != member.compress_size:
        raise BadResponse("it cannot be unpacked: it is cut short")
    if method == zipfile.ZIP_STORED:
        data, is_whole = bytes(packed), True
    elif method == zipfile.ZIP_DEFLATED:
        data, is_whole = _inflated(packed, member.file_size)
    else:
        raise BadResponse(f"it cannot be unpacked: method {method}; only store and deflate are read")
    if len(data) != member.file_size or not is_whole:
        raise BadResponse(f"it cannot be unpacked: it does not unpack to the announced {member.file_size} bytes")
    if zlib.crc32(data) != member.CRC:
        raise BadResponse("it cannot be unpacked: its content does not match its CRC")
    return data


def _inflated(packed: memoryview, size_bytes: int) -> tuple[bytes, bool]:
    """Return at most a byte more than announced, and whether the end was reached."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflater.decompress(packed, size_bytes + 1)
    except zlib.error as error:
        raise BadResponse(f"it cannot be unpacked: {error}") from None
    return data, inflater.eof and not inflater.unused_data
