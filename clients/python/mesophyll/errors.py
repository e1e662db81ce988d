"""The one error of this package, and when what failed may be repeated."""

import re

# As the stream and a replay name them; other codes are their own names in small letters.
KINDS = {
    "ScriptError": "script",
    "NotOwner": "no_worker",
    "Banned": "refused",
    "Quarantined": "refused",
    "Restricted": "refused",
    "BadRequest": "bad_input",
    "TooLarge": "bad_input",
}
# As plain calls name them.
CODES = {
    "script": "ScriptError",
    "not_sent": "NoWorker",
    "bad_input": "BadRequest",
    "duplicate": "Conflict",
}
PASSES = ("busy", "no_worker", "not_sent", "unavailable")


class MesophyllError(Exception):
    """A call or an event that did not succeed.

    `kind` and `code` say why, in the words of the stream and of plain calls. `sent`: what was asked
    for may have been done.
    """

    def __init__(self, kind, message, *, sent, code=None, status=None, retry_after=None):
        super().__init__(f"{kind}: {message}")
        self.kind, self.message, self.sent, self.status = kind, message, sent, status
        self.code = code or CODES.get(kind) or kind.title().replace("_", "")
        self.retry_after = retry_after

    @classmethod
    def of_code(cls, code, message, *, sent, status, retry_after=None):
        """The error that a plain call was answered with."""
        kind = KINDS.get(code) or re.sub(r"\B(?=[A-Z])", "_", code).lower()
        return cls(kind, message, sent=sent, code=code, status=status, retry_after=retry_after)

    @property
    def passes(self):
        """Nothing was done, and a moment later it may be: it may be repeated as it is."""
        return not self.sent and self.kind in PASSES
