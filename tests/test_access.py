"""What references may open, and what is remembered of files."""

import pytest
import sounds

from alm2vec_integrations import AudioClip, segment
from alm2vec_integrations.audio.access import AccessPolicy
from alm2vec_integrations.audio.decoding import decode

NO_ROOTS = AccessPolicy()


def test_the_digest_of_a_long_file_is_not_read_for_every_segment(tmp_path, monkeypatch):
    """Once it is known; and again when the file changes."""
    import os

    from alm2vec_integrations import AudioAccessError
    from alm2vec_integrations.audio import access, remembering

    path = sounds.write(tmp_path / "x.wav", sounds.noise(5.0))
    os.utime(path, (1_000_000_000, 1_000_000_000))
    monkeypatch.setattr(remembering, "_SETTLED_NS", -(10**18))  # ctime cannot be set back
    reference = AudioClip(path).reference()
    hashed, real = [], access.hashlib.sha256
    monkeypatch.setattr(access.hashlib, "sha256", lambda *data: hashed.append(1) or real(*data))
    policy = AccessPolicy(tmp_path)
    for clip in segment(AudioClip.from_reference(reference), segment_seconds=1, allowed_audio_roots=tmp_path):
        decode(clip, policy)
    assert hashed == []
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(AudioAccessError, match="changed"):
        decode(AudioClip.from_reference(reference), policy)


def test_a_digest_is_not_kept_of_a_file_that_just_changed(tmp_path, monkeypatch):
    """Another change in the same tick of the clock would not show."""
    import time

    from alm2vec_integrations import AudioAccessError
    from alm2vec_integrations.audio import remembering

    path = sounds.write(tmp_path / "x.wav", sounds.noise(1.0))
    now = time.time_ns()
    monkeypatch.setattr(remembering, "_state", lambda file: (1, 2, 3, now, now))
    clip = AudioClip(path, digest=AudioClip(path).reference()[-16:])
    decode(clip, NO_ROOTS)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(AudioAccessError, match="changed"):
        decode(clip, NO_ROOTS)


def test_a_file_that_is_exchanged_while_it_is_opened(tmp_path, monkeypatch):
    """What is open must be what was allowed."""
    from alm2vec_integrations import AudioAccessError
    from alm2vec_integrations.audio import access

    inside = sounds.write(tmp_path / "in" / "x.wav", sounds.noise(1.0))
    outside = sounds.write(tmp_path / "out.wav", sounds.noise(1.0))
    clip, policy, real = AudioClip.from_reference(f"audio:{inside}"), AccessPolicy(tmp_path / "in"), access.open_file
    decode(clip, policy)
    monkeypatch.setattr(access, "open_file", lambda path: real(str(outside)))
    with pytest.raises(AudioAccessError, match="changed while it was opened"):
        decode(clip, policy)
