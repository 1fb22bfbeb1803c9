import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cloud.serving.ports import EarlyDecision
from cloud.serving.replicas.messages import answers_of, failure_reply, reply_of, request_of, samples_of
from shared.errors import BundleError, EngineError, SampleRejected, StorageError, UntrustedBundleError
from shared.samples import ImageCrop, Opinion, Region, Verdict
from vedette.v1 import judge_pb2

BUNDLE = judge_pb2.BundleReference(bundle_id="a-1-0", manifest_sha256=b"1" * 32, trusted_keys=[b"2" * 32])
SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)
VALUES = arrays.arrays(np.float32, SHAPES) | arrays.arrays(np.uint8, SHAPES)
SIZES = st.integers(0, 2**20)
CROPS = st.none() | st.builds(ImageCrop, SIZES, SIZES, st.none() | st.builds(Region, SIZES, SIZES, SIZES, SIZES))
NUMBERS, NAMES = st.floats(), st.text(max_size=8)
VERDICTS = st.builds(
    Verdict,
    p_value=st.none() | st.floats(0, 1),
    extrapolated=st.booleans(),
    opinions=st.lists(st.builds(Opinion, NAMES, NUMBERS, NUMBERS, st.booleans()), max_size=3).map(tuple),
    anomaly_map=st.none() | arrays.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5))),
    contributions=st.lists(st.tuples(NAMES, NUMBERS), max_size=3).map(tuple),
    score=NUMBERS,
    left_out=st.lists(NAMES, max_size=3).map(tuple),
)


@given(st.lists(st.tuples(VALUES, CROPS, st.booleans()), max_size=4), st.booleans())
def test_requests_keep_every_bit(samples, is_early):
    values, crops = [each[0] for each in samples], [each[1] for each in samples]
    early = EarlyDecision(0.01, [each[2] for each in samples]) if is_early else None
    message = request_of(BUNDLE, values, crops, early).SerializeToString()
    found, found_crops, found_early = samples_of(judge_pb2.JudgeRequest.FromString(message))
    assert (found_crops, found_early) == (crops, early)
    for got, sent in zip(found, values, strict=True):
        assert (got.dtype, got.shape, got.tobytes()) == (sent.dtype, sent.shape, sent.tobytes())


@settings(max_examples=25)
@given(st.lists(VERDICTS | st.builds(SampleRejected, NAMES), max_size=2))
def test_replies_keep_every_answer(answers):
    message = reply_of(answers, 0.5).SerializeToString()
    for got, sent in zip(answers_of(judge_pb2.JudgeReply.FromString(message)), answers, strict=True):
        assert repr(got) == repr(sent)  # repr, because NaN differs from itself
        if isinstance(sent, Verdict):
            assert got.left_out == sent.left_out
            assert got.score == sent.score or math.isnan(sent.score)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UntrustedBundleError("not signed"), UntrustedBundleError),
        (StorageError("disk"), StorageError),
        (MemoryError("8 GiB"), MemoryError),
        (type("OtherError", (BundleError,), {})("odd"), BundleError),
        (ZeroDivisionError("by zero"), EngineError),
    ],
)
def test_a_failure_is_raised_as_its_own_kind(error, kind):
    message = failure_reply(error).SerializeToString()
    with pytest.raises(kind, match=str(error)) as raised:
        answers_of(judge_pb2.JudgeReply.FromString(message))
    assert type(raised.value) is kind
