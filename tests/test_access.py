"""What references may open, and what is remembered of files."""

import os

import pytest
import sounds

from alm2vec_integrations import AudioAccessError, AudioClip, AudioError, segment
from alm2vec_integrations.audio.access import AccessPolicy
from alm2vec_integrations.audio.decoding import decode

NO_ROOTS = AccessPolicy()


def test_the_digest_of_a_long_file_is_not_read_for_every_segment(tmp_path, monkeypatch):
    """Once it is known; and again when the file changes."""
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

    from alm2vec_integrations.audio import remembering

    path = sounds.write(tmp_path / "x.wav", sounds.noise(1.0))
    now = time.time_ns()
    monkeypatch.setattr(remembering, "_state", lambda file: (1, 2, 3, now, now))
    clip = AudioClip(path, digest=AudioClip(path).reference()[-16:])
    decode(clip, NO_ROOTS)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(AudioAccessError, match="changed"):
        decode(clip, NO_ROOTS)


@pytest.mark.parametrize("what", ["file", "folder", "folder of the file"])
@pytest.mark.parametrize("has_dir_fd", [True, False])
def test_what_is_exchanged_while_it_is_opened(tmp_path, monkeypatch, what, has_dir_fd):
    """Whoever asks where a path leads is told the place inside, whoever opens it finds a link to one outside."""
    from alm2vec_integrations.audio import access

    inside = sounds.write(tmp_path / "in" / "a" / "b" / "x.wav", sounds.noise(1.0, seed=1))
    outside = sounds.write(tmp_path / "out" / "b" / "x.wav", sounds.noise(1.0, seed=2))
    changed, target = {
        "file": (inside, outside),
        "folder of the file": (inside.parent, outside.parent),
        "folder": (inside.parent.parent, outside.parent.parent),
    }[what]
    kept, real = changed.with_name("kept"), access._resolved
    if not has_dir_fd:
        monkeypatch.setattr(os, "supports_dir_fd", set())

    def put_back():
        if changed.is_symlink():
            changed.unlink()
            kept.rename(changed)

    def asked(path):
        if str(path) != str(inside):
            return real(path)
        put_back()
        found = real(path)
        changed.rename(kept)
        changed.symlink_to(target)
        return found

    clip, policy = AudioClip.from_reference(f"audio:{inside}"), AccessPolicy(tmp_path / "in")
    monkeypatch.setattr(access, "_resolved", asked)
    with pytest.raises((AudioAccessError, AudioError), match=r"changed while it was opened|cannot be opened"):
        decode(clip, policy)
    monkeypatch.setattr(access, "_resolved", real)
    put_back()
    assert len(decode(clip, policy)) == 16_000


def test_folders_that_may_only_be_passed_through(tmp_path):
    """Nobody needs to list them."""
    inside = sounds.write(tmp_path / "in" / "a" / "x.wav", sounds.noise(1.0))
    inside.parent.chmod(0o111)
    try:
        assert len(decode(AudioClip.from_reference(f"audio:{inside}"), AccessPolicy(tmp_path / "in"))) == 16_000
    finally:
        inside.parent.chmod(0o755)


def test_a_file_may_be_a_root_and_a_file_is_no_folder(tmp_path):
    inside = sounds.write(tmp_path / "in" / "x.wav", sounds.noise(1.0))
    assert len(decode(AudioClip.from_reference(f"audio:{inside}"), AccessPolicy(inside))) == 16_000
    with pytest.raises(AudioError, match=r"cannot be opened \(Not a directory\)"):
        decode(AudioClip.from_reference(f"audio:{inside}/y.wav"), AccessPolicy(tmp_path / "in"))
