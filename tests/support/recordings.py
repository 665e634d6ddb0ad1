"""One sound in every format that is read, made by the libraries that the package reads with."""

import io
from pathlib import Path

import numpy as np
import soundfile

OF_LIBSNDFILE = {
    "wav u8": ("wav", "WAV", "PCM_U8", 44_100),
    "wav 16": ("wav", "WAV", "PCM_16", 44_100),
    "wav 24": ("wav", "WAV", "PCM_24", 48_000),
    "wav 32": ("wav", "WAV", "PCM_32", 96_000),
    "wav float": ("wav", "WAV", "FLOAT", 22_050),
    "wav double": ("wav", "WAV", "DOUBLE", 16_000),
    "wav extensible": ("wav", "WAVEX", "PCM_24", 48_000),
    "wav a-law": ("wav", "WAV", "ALAW", 8_000),
    "rf64": ("rf64", "RF64", "PCM_16", 48_000),
    "w64": ("w64", "W64", "PCM_16", 48_000),
    "flac 16": ("flac", "FLAC", "PCM_16", 44_100),
    "flac 24": ("flac", "FLAC", "PCM_24", 96_000),
    "ogg vorbis": ("ogg", "OGG", "VORBIS", 44_100),
    "opus": ("opus", "OGG", "OPUS", 48_000),
    "mp3": ("mp3", "MP3", "MPEG_LAYER_III", 44_100),
    "aiff": ("aiff", "AIFF", "PCM_16", 44_100),
    "aiff float": ("aiff", "AIFF", "FLOAT", 44_100),
    "au": ("au", "AU", "PCM_16", 8_000),
    "caf": ("caf", "CAF", "PCM_16", 44_100),
}

OF_FFMPEG = {
    "m4a": ("m4a", "aac", None, 44_100, False),
    "aac": ("aac", "aac", "adts", 44_100, False),
    "webm": ("webm", "libopus", None, 48_000, False),
    "mp4 with pictures": ("mp4", "aac", None, 48_000, True),
    "mov, lossless": ("mov", "alac", None, 44_100, False),
    "mka": ("mka", "flac", "matroska", 32_000, False),
}

# What containers hold of no length of their own, and which files are joined: name of the format, and how it is made.
ROUNDABOUT = {
    "mp3, no length": lambda seconds: mp3(chirp(seconds, 44_100, 1)[:, 0], xing=False),
    "mp4 in fragments": lambda seconds: of_ffmpeg(
        chirp(seconds, 44_100, 1)[:, 0],
        44_100,
        "mp4",
        "aac",
        movflags="frag_keyframe+empty_moov",
        frag_duration="100000",
    ),
    "webm, live": lambda seconds: of_ffmpeg(chirp(seconds, 48_000, 1)[:, 0], 48_000, "webm", "libopus", live="1"),
    "joined vorbis": lambda seconds: 2 * encode("ogg vorbis", seconds, 1),
    "joined opus": lambda seconds: 2 * encode("opus", seconds, 1),
}

LOSSY = {"wav u8", "wav a-law", "ogg vorbis", "opus", "mp3", "m4a", "aac", "webm", "mp4 with pictures"}


def chirp(seconds: float, rate: int, channels: int = 2) -> np.ndarray:
    """A tone that rises from 200 Hz, so that every place in it is like no other: float32 [n, channels]."""
    time = np.arange(round(seconds * rate)) / rate
    return np.repeat((0.3 * np.sin(2 * np.pi * (200 + 40 * time) * time)).astype(np.float32)[:, None], channels, axis=1)


def encode(name: str, seconds: float = 3.0, channels: int = 2) -> bytes:
    """The chirp as the bytes of a file of one of the formats."""
    target = io.BytesIO()
    if name in OF_LIBSNDFILE:
        _, container, subtype, rate = OF_LIBSNDFILE[name]
        samples = chirp(seconds, rate, channels)
        with soundfile.SoundFile(target, "w", rate, channels, subtype, format=container) as file:
            for start in range(0, len(samples), 4096):  # libsndfile's Vorbis crashes on long writes
                file.write(samples[start : start + 4096])
    else:
        _write_with_ffmpeg(target, name, seconds, channels)
    return target.getvalue()


def write(path: Path, name: str, seconds: float = 3.0, channels: int = 2) -> Path:
    """The chirp in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(name, seconds, channels))
    return path


def rate_of(name: str) -> int:
    """Frames per second of a format's file."""
    return OF_LIBSNDFILE[name][3] if name in OF_LIBSNDFILE else OF_FFMPEG[name][3]


def _write_with_ffmpeg(target: io.BytesIO, name: str, seconds: float, channels: int) -> None:
    import av

    suffix, codec, container, rate, pictures = OF_FFMPEG[name]
    container = container or {"m4a": "ipod", "mp4": "mp4"}.get(suffix, suffix)
    layout = {1: "mono", 2: "stereo"}[channels]
    with av.open(target, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout)
        if pictures:
            video = file.add_stream("mpeg4", rate=10)
            video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
            for _ in range(round(seconds * 10)):
                picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                file.mux(video.encode(picture))
            file.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(chirp(seconds, rate, channels).T), format="fltp", layout=layout
        )
        frame.sample_rate, frame.pts = rate, 0
        context = stream.codec_context
        fitted = av.AudioResampler(context.format.name, layout, rate, frame_size=context.frame_size or 1024)
        for one in [*fitted.resample(frame), *fitted.resample(None)]:
            file.mux(stream.encode(one))
        file.mux(stream.encode(None))


def of_ffmpeg(samples: np.ndarray, rate: int, container: str, codec: str, **options: str) -> bytes:
    """Mono samples, float32 [n], in a container of FFmpeg's."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        fitted = av.AudioResampler(stream.format, "mono", rate, frame_size=stream.frame_size or 1024)
        for one in [*fitted.resample(frame), *fitted.resample(None)]:
            output.mux(stream.encode(one))
        output.mux([packet for packet in stream.encode(None) if packet.size])
    return file.getvalue()


def mp3(samples: np.ndarray, *, xing: bool, mode: str = "VARIABLE", rate: int = 44_100) -> bytes:
    """An MP3 with the header that tells its length, or without."""
    target = io.BytesIO()
    with soundfile.SoundFile(
        target, "w", rate, 1, "MPEG_LAYER_III", format="MP3", bitrate_mode=mode, compression_level=0.5
    ) as file:
        for start in range(0, len(samples), rate):
            file.write(samples[start : start + rate])
    data = target.getvalue()
    return data if xing else data[data.index(b"\xff\xfb", 10) :]


def film(container: str, samples: np.ndarray, picture_seconds: float, late_seconds: float = 0.0) -> bytes:
    """Black pictures with sound (48 kHz, mono) that begins late, in a container of FFmpeg's."""
    import av

    codecs = {"webm": ("libvpx", "libopus"), "matroska": ("mpeg4", "libopus"), "mp4": ("mpeg4", "aac")}
    video_codec, audio_codec = codecs[container]
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        video = output.add_stream(video_codec, rate=10)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        rate = 48_000
        audio = output.add_stream(audio_codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48_000, 0
        fitted = av.AudioResampler(audio.format, "mono", rate, frame_size=audio.frame_size or 960)
        packets = []
        for one in [*fitted.resample(frame), *fitted.resample(None), None]:
            if one is not None:
                one.pts = (one.pts or 0) + round(late_seconds * rate)
            packets += audio.encode(one)
        for _ in range(round(10 * picture_seconds)):
            packets += video.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24"))
        packets += video.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            output.mux(packet)
    return file.getvalue()
