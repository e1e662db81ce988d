"""Where masters are, and the tokens that they want."""

import hashlib
import hmac
import os
import random
import time


def mint(secret, user, expires, *, act_as_any=False):
    """A token for a user, good until `expires` (Unix seconds), as `mesophyll token` makes it."""
    signed = f"{user}{'*' if act_as_any else ''}.{int(expires)}"
    secret = secret.encode() if isinstance(secret, str) else secret
    return f"{signed}.{hmac.new(secret, signed.encode(), hashlib.sha256).hexdigest()}"


def backoff(attempt):
    """How long to wait before a repetition, in seconds: not in step with other callers."""
    return min(0.05 * 2 ** min(attempt, 10), 2.0) * random.uniform(0.5, 1.0)


class Endpoint:
    """The addresses of one master or of several of a cluster, and the caller's token.

    An address is `HOST:PORT`, `http://…`, `https://…` or `tls:HOST:PORT`. With a secret (at least
    32 bytes) tokens are minted and renewed; `act_as_any` lets them name an event's author.
    """

    def __init__(
        self,
        addresses=None,
        *,
        token=None,
        secret=None,
        user=0,
        act_as_any=False,
        lifetime=3600,
        ssl=None,
    ):
        named = os.environ.get("MESOPHYLL_MASTER_API") or os.environ.get("MESOPHYLL_API")
        addresses = addresses or named or "127.0.0.1:7451"
        addresses = [addresses] if isinstance(addresses, str) else addresses
        self.places = [_place(address) for address in addresses]
        self.ssl = ssl
        self._at = 0
        if token is None and secret is None:
            token = os.environ.get("MESOPHYLL_INTERNAL_TOKEN")
            secret = os.environ.get("MESOPHYLL_API_SECRET")
        if not (token or secret):
            raise ValueError("there is neither a token nor a secret to mint one")
        self._token, self._renew_at = token, float("inf")
        if not token:
            self._secret, self._user, self._act_as_any = secret, user, act_as_any
            self._lifetime, self._renew_at = lifetime, 0.0

    def authorization(self):
        """The header's value. A minted token has at least half of its lifetime left."""
        now = time.time()
        if now >= self._renew_at:
            expires = now + self._lifetime
            token = mint(self._secret, self._user, expires, act_as_any=self._act_as_any)
            self._token, self._renew_at = token, now + self._lifetime / 2
        return f"Internal {self._token}"

    @property
    def place(self):
        """The master that is asked now: host, port, and whether by TLS."""
        return self.places[self._at % len(self.places)]

    def leave(self, place):
        """Asks another master from now on, if there is one: this one is not there."""
        if place == self.place:
            self._at += 1


def _place(address):
    is_tls = address.startswith(("tls:", "https://"))
    for scheme in ("tls:", "http://", "https://"):
        address = address.removeprefix(scheme)
    host, _, port = address.rstrip("/").rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"an address is HOST:PORT, not {address!r}")
    return host, int(port), is_tls
