"""Values that JSON lacks, which the API writes as an object with one key that starts with `$`."""

import base64
import math
import re
from datetime import datetime, timedelta, timezone
from typing import NamedTuple


class Timestamp(datetime):
    """A moment; `text` keeps the digits below a microsecond."""

    text = None

    @classmethod
    def of(cls, text):
        # Before Python 3.11 neither Z nor more than six digits of a second are understood.
        match = re.fullmatch(r"(.*?)(?:\.(\d+))?(?:Z|\+00:00)", text)
        moment = cls.fromisoformat(match[1]).replace(
            microsecond=int((match[2] or "0")[:6].ljust(6, "0")), tzinfo=timezone.utc
        )
        moment.text = text
        return moment


class Interval(NamedTuple):
    """A span of time; the nanoseconds count forwards, also of a negative one."""

    seconds: int
    nanoseconds: int

    def timedelta(self):
        return timedelta(seconds=self.seconds, microseconds=self.nanoseconds // 1000)


class Vector(NamedTuple):
    x: float
    y: float
    z: float


class TimeZone(str):
    """The name of a time zone."""


class StringMap(dict):
    """A map of texts that the other side reads only when it is asked for one of them."""


class Pairs(list):
    """A map whose keys a dict cannot have: a list of its pairs."""


def encode(value):
    """A value as the API takes it. A dict, a list or a NamedTuple may nest."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return {"$float": "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}
    if isinstance(value, TimeZone):
        return {"$timezone": str(value)}
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$buffer": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a moment without a time zone is none")
        text = value.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
        return {"$timestamp": getattr(value, "text", None) or text}
    if isinstance(value, timedelta):
        seconds = value // timedelta(seconds=1)
        rest = value - timedelta(seconds=seconds)
        return {"$interval": [seconds, rest.microseconds * 1000]}
    if isinstance(value, Interval):
        return {"$interval": list(value)}
    if isinstance(value, Vector):
        return {"$vector": [encode(float(number)) for number in value]}
    if isinstance(value, StringMap):
        return {"$string_map": dict(value)}
    if isinstance(value, Pairs):
        return {"$map": [[encode(key), encode(item)] for key, item in value]}
    if isinstance(value, dict):
        is_tag = len(value) == 1 and str(next(iter(value))).startswith("$")
        if is_tag or not all(type(key) is str for key in value):
            return encode(Pairs(value.items()))
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    raise TypeError(f"no value of the API is a {type(value).__name__}")


def _map(pairs):
    pairs = Pairs((decode(key), decode(item)) for key, item in pairs)
    # 1, 1.0 and True are one key of a dict.
    is_dict = all(type(key) in (str, int, bytes) for key, _ in pairs)
    return dict(pairs) if is_dict and len({key for key, _ in pairs}) == len(pairs) else pairs


DECODERS = {
    "$buffer": base64.b64decode,
    "$float": float,
    "$interval": lambda pair: Interval(*pair),
    "$map": _map,
    "$string_map": StringMap,
    "$timestamp": Timestamp.of,
    "$timezone": TimeZone,
    "$vector": lambda numbers: Vector(*map(decode, numbers)),
}


def decode(value):
    """What the API wrote as a value."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((tag, inner),) = value.items()
        if tag in DECODERS:
            try:
                return DECODERS[tag](inner)
            except (ValueError, TypeError):
                return value  # Such as a year that a datetime has no room for.
    return {key: decode(item) for key, item in value.items()}


def given(**members):
    """Those that are not None."""
    return {name: value for name, value in members.items() if value is not None}


def path_of(tenant):
    """`guild:123` as it stands in a path."""
    if not re.fullmatch(r"(guild|user):[0-9]{1,20}", tenant):
        raise ValueError(f"a tenant is guild:ID or user:ID, not {tenant!r}")
    return tenant.replace(":", "/")
