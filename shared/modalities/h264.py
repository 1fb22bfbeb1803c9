"""Clips as H.264 streams (ITU-T H.264, Annex B): encoding at a bounded size, checks without decoding, exact decoding.

Every conforming decoder gives the same luma and chroma for a stream, and OpenCV converts them to RGB by fixed-point
arithmetic, so a stream gives the same pixels on every machine. They differ from the pixels that the screener saw.
"""

import io
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import SampleRejected
from shared.images import opencv
from shared.videos import pyav

START_CODE = b"\x00\x00\x00\x01"
MAX_FRAME_PIXELS = 2**22
MAX_REFERENCE_FRAMES = 16
QUALITY_LADDER = (23, 28, 33, 38, 44)  # x264's constant rate factors, from good to rough
_ENCODER, _CHROMA, _TIME_BASE = "libx264", "yuv420p", Fraction(1, 25)
_SLICE, _KEY_SLICE, _PARAMETERS = 1, 5, 7
_UNIT_TYPES = frozenset({_SLICE, _KEY_SLICE, 6, _PARAMETERS, 8, 9, 12})  # 6: SEI, 8: PPS, 9: delimiter, 12: filler
_BASELINE, _MAIN, _HIGH = 66, 77, 100


def can_encode(clip: NDArray[np.uint8]) -> bool:
    """Return whether a clip (frames, height, width, bands) can be encoded: RGB, even sides, and x264 is installed."""
    _, height, width, bands = clip.shape
    if bands != 3 or height % 2 or width % 2 or not 0 < height * width <= MAX_FRAME_PIXELS:
        return False
    av = pyav()
    try:
        av.codec.Codec(_ENCODER, "w")
    except av.codec.UnknownCodecError:
        return False
    return True


def encode_h264(clip: NDArray[np.uint8], max_bytes: int = 0) -> bytes:
    """Return a clip (frames, height, width, 3) as a stream.

    Takes the best quality of QUALITY_LADDER that fits into `max_bytes`, or the lowest one if none does; 0 sets no
    bound.
    """
    cv2 = opencv()
    pictures = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2YUV_I420) for frame in clip]
    data = b""
    for rate_factor in QUALITY_LADDER:
        data = _encode(pictures, rate_factor)
        if max_bytes <= 0 or len(data) <= max_bytes:
            break
    return data


def check_h264(data: bytes, shape: tuple[int, ...]) -> None:
    """Raise SampleRejected unless `data` is a stream of `shape` (frames, height, width, 3).

    Looks at the parameter sets and at the header of each slice; pictures are not decoded. Accepts progressive 8-bit
    4:2:0 streams of the baseline, main and high profiles.
    """
    frames, height, width, bands = shape
    if bands != 3 or height * width > MAX_FRAME_PIXELS:
        raise SampleRejected(f"H.264 clip of shape {shape}; frames have 3 bands and at most {MAX_FRAME_PIXELS} pixels")
    if not data.startswith(START_CODE):
        raise SampleRejected("payload is not an H.264 stream")
    pictures, has_parameters = 0, False
    for unit in _units(data):
        kind = unit[0] & 0x1F
        if unit[0] & 0x80 or kind not in _UNIT_TYPES or len(unit) < 2:
            raise SampleRejected(f"H.264 stream holds a damaged or unexpected unit of type {kind}")
        if kind == _PARAMETERS:
            has_parameters = True
            size = stream_size(unit)
            if size != (height, width):
                raise SampleRejected(
                    f"H.264 stream has frames of {size[0]} x {size[1]} pixels; its payload says {shape}"
                )
        if kind in (_SLICE, _KEY_SLICE):
            if not has_parameters or (not pictures and kind != _KEY_SLICE):
                raise SampleRejected("H.264 stream does not begin with its parameters and a key frame")
            pictures += unit[1] >> 7  # first_mb_in_slice is 0, coded as a single 1 bit: a new picture
    if pictures != frames:
        raise SampleRejected(f"H.264 stream of {pictures} frames; its payload says {frames}")


def decode_h264(data: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the frames of a stream that `check_h264` accepts; raises SampleRejected if a frame is damaged."""
    av, cv2 = pyav(), opencv()
    codec = av.CodecContext.create("h264", "r")
    codec.thread_count = 1
    codec.options = {"err_detect": "explode"}  # an error ends decoding instead of being painted over
    clip = np.empty(shape, dtype=np.uint8)
    found = 0
    try:
        for frame in _frames(codec, data):
            if found == shape[0] or frame.is_corrupt or (frame.height, frame.width) != shape[1:3]:
                raise SampleRejected(f"H.264 stream is damaged at frame {found}")
            planes = frame.to_ndarray(format=_CHROMA)
            clip[found] = cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_I420)
            found += 1
    except (av.error.FFmpegError, cv2.error, ValueError) as error:
        raise SampleRejected(f"H.264 stream is damaged after {found} frames ({type(error).__name__})") from None
    if found != shape[0]:
        raise SampleRejected(f"H.264 stream gives {found} frames; its payload says {shape[0]}")
    return clip


def stream_size(unit: bytes) -> tuple[int, int]:
    """Return height and width of a sequence parameter set (7.3.2.1.1); raises SampleRejected for unsupported ones."""
    bits = _Bits(unit[1:].replace(b"\x00\x00\x03", b"\x00\x00"))
    try:
        profile = bits.read(8)
        bits.read(16)  # constraint flags and level
        bits.number()  # seq_parameter_set_id
        if profile == _HIGH:
            # chroma_format_idc 1 (4:2:0), 8 bits of luma and chroma, no lossless bypass, no scaling matrices
            if bits.number() != 1 or bits.number() or bits.number() or bits.read(2):
                raise SampleRejected("H.264 stream is not 8-bit 4:2:0")
        elif profile not in (_BASELINE, _MAIN):
            raise SampleRejected(f"H.264 profile {profile} is not supported: use baseline, main or high")
        bits.number()  # log2_max_frame_num_minus4
        _skip_picture_order(bits)
        references = bits.number()
        bits.read(1)  # gaps_in_frame_num_value_allowed_flag
        width, height = 16 * (bits.number() + 1), 16 * (bits.number() + 1)
        if not bits.read(1) or references > MAX_REFERENCE_FRAMES:  # frame_mbs_only_flag
            raise SampleRejected("H.264 stream is interlaced, or refers to too many frames")
        bits.read(1)  # direct_8x8_inference_flag
        if bits.read(1):  # frame_cropping_flag; in units of two pixels
            left, right, top, bottom = (2 * bits.number() for _ in range(4))
            width, height = width - left - right, height - top - bottom
    except IndexError:
        raise SampleRejected("H.264 stream breaks off in its parameters") from None
    return height, width


def _skip_picture_order(bits: "_Bits") -> None:
    kind = bits.number()
    if kind == 0:
        bits.number()  # log2_max_pic_order_cnt_lsb_minus4
    elif kind == 1:
        raise SampleRejected("H.264 stream orders its pictures in an unsupported way")


def _encode(pictures: list[NDArray[np.uint8]], rate_factor: int) -> bytes:
    """Return pictures (height * 3 / 2, width) in I420 as a stream: one key frame, no reordering."""
    av = pyav()
    codec = av.CodecContext.create(_ENCODER, "w")
    codec.height, codec.width = pictures[0].shape[0] * 2 // 3, pictures[0].shape[1]
    codec.pix_fmt, codec.time_base, codec.framerate = _CHROMA, _TIME_BASE, 1 / _TIME_BASE
    codec.thread_count = 1
    codec.options = {"preset": "veryfast", "crf": str(rate_factor), "bf": "0", "x264-params": "scenecut=0:annexb=1"}
    stream = io.BytesIO()
    for number, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(picture, format=_CHROMA)
        frame.pts = number
        for packet in codec.encode(frame):
            stream.write(bytes(packet))
    for packet in codec.encode(None):
        stream.write(bytes(packet))
    return stream.getvalue()


def _frames(codec: Any, data: bytes) -> Any:
    for packet in [*codec.parse(data), *codec.parse(b"")]:
        yield from codec.decode(packet)
    yield from codec.decode(None)


def _units(data: bytes) -> list[bytes]:
    """Return the units between start codes, without the zero bytes that precede the next code."""
    return [unit.rstrip(b"\x00") or b"\x00" for unit in data.split(b"\x00\x00\x01") if unit.strip(b"\x00")]


class _Bits:
    """Bits of a parameter set, most significant first; reading beyond the end raises IndexError."""

    def __init__(self, data: bytes) -> None:
        self._data, self._position = data, 0

    def read(self, count: int) -> int:
        """Return the next `count` bits as a number."""
        value = 0
        for _ in range(count):
            byte = self._data[self._position >> 3]
            value = value << 1 | byte >> 7 - (self._position & 7) & 1
            self._position += 1
        return value

    def number(self) -> int:
        """Return the next number in Exp-Golomb code (clause 9.1)."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > 31:
                raise SampleRejected("H.264 stream is damaged in its parameters")
        return (1 << zeros) - 1 + self.read(zeros)
