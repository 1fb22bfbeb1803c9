"""The prepared answer equals the message that protobuf makes."""

from cloud.service.answers import accepted
from shared.samples import new_sample_ids
from vedette.v1 import detection_pb2


def test_the_answer_that_accepts_all_samples_is_the_message_that_protobuf_writes():
    for count in (0, 1, 3):
        ids = [made.bytes for made in new_sample_ids(count)]
        results = [
            detection_pb2.SampleResult(sample_id=made, status=detection_pb2.SUBMIT_STATUS_ACCEPTED) for made in ids
        ]
        assert accepted(ids) == detection_pb2.SubmitResponse(results=results).SerializeToString()
