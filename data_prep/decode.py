"""From the bytes of one row to its value, or the reason why it has none."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import NamedTuple

import msgspec

from data_prep.conversation import Reason, Reject

_decode = msgspec.json.Decoder().decode


def decode(row: RawRow) -> object:
    """The value of ``row``, or a `Reject` that names why it has none."""
    if row.fault is not None:
        return Reject(row.fault)
    try:
        return _decode(row.data)
    except RecursionError:
        return Reject(Reason.TOO_DEEP)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Reject(decode_fault(row))


def decode_fault(row: RawRow) -> Reason:
    """Why ``row`` could not be decoded. The lenient standard decoder tells what the strict one stumbled over."""
    constants: list[str] = []
    try:
        text = row.data.decode("utf-8")
    except UnicodeDecodeError:
        return Reason.TRUNCATED if row.last else Reason.INVALID_UTF8
    try:
        json.loads(text, parse_constant=constants.append)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return Reason.EXTRA_DATA
        return Reason.TRUNCATED if row.last else Reason.NOT_JSON
    except RecursionError:
        return Reason.TOO_DEEP
    except ValueError:  # an integer with thousands of digits
        return Reason.NON_FINITE_NUMBER
    if constants:
        return Reason.NON_FINITE_NUMBER
    return Reason.LONE_SURROGATE if re.search(r"\\u[dD][89a-fA-F]", text) else Reason.NON_FINITE_NUMBER


def repeats_key(data: bytes, keys: Collection[str]) -> bool:
    """True when an object of the row ``data``, at any depth, has one of ``keys`` twice; ``data`` is valid JSON.

    About 30 times the price of decoding: ask only when a count of the bytes says that it may be so.
    """
    found = False

    def pairs(items: list[tuple[str, object]]) -> None:
        nonlocal found
        names = [name for name, _ in items]
        found = found or (len(set(names)) < len(names) and any(names.count(key) > 1 for key in keys))

    try:
        json.loads(data, object_pairs_hook=pairs)
    except (RecursionError, ValueError):  # nests deeper, or has longer numbers, than this decoder takes
        return True
    return found


class RawRow(NamedTuple):
    """One row before decoding: its line or element number from 1, its bytes, and what the reader found wrong."""

    number: int
    data: bytes
    fault: Reason | None
    last: bool = False
    """True on a last line without a line end, where broken JSON means a cut-off file."""
