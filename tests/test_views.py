"""Parts of files as files."""

import io
import os

import pytest

from alm2vec_integrations.audio.views import Part, read_at


@pytest.mark.parametrize(("before", "content"), [(b"", b"cdefg"), (b"12", b"12cdefg")])
def test_a_part_is_as_a_file_of_its_bytes(before, content):
    """Wherever and however much is read, and never what lies around it."""
    part, whole = Part(io.BytesIO(b"abcdefghij"), 2, 7, before=before), io.BytesIO(content)
    assert part.seek(0, os.SEEK_END) == len(content)
    for place in range(len(content) + 2):
        for count in (-1, *range(len(content) + 2)):
            assert part.seek(place) == whole.seek(place)
            assert part.read(count) == whole.read(count)
            assert part.tell() == whole.tell()
    part.seek(3)
    assert part.seek(-2, os.SEEK_CUR) == part.tell() == 1
    assert part.seek(-2, os.SEEK_END) == len(content) - 2
    assert part.read() == content[-2:]


def test_what_is_read_at_a_place():
    file = io.BytesIO(b"abcdefghij")
    assert [read_at(file, 2, 3), read_at(file, 8, 9), read_at(file, 20, 1)] == [b"cde", b"ij", b""]
