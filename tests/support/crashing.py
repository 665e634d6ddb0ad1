"""What ends the process that opens a file of a certain name."""

import os
from pathlib import Path

from alm2vec_integrations.audio.access import AccessPolicy


class CrashingPolicy(AccessPolicy):
    """As a decoder crashes: without an exception, at files whose name begins with "crash"."""

    def __init__(self, signal):
        super().__init__()
        self.signal = int(signal)

    def open(self, clip, *, check_digest):
        if Path(clip.path).name.startswith("crash"):
            os.kill(os.getpid(), self.signal)
        return super().open(clip, check_digest=check_digest)
