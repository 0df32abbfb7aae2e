from demiurge.audio.v1.audio_pb2 import ObjectRef
from demiurge.gateway.v1.run_record_pb2 import RunRecord
from google.protobuf.struct_pb2 import Struct, Value

from services.gateway.standing import references


def test_references_are_found_beside_models_that_were_judged() -> None:
    record = RunRecord()
    record.snapshot.material.add(key="audio/a/b.wav")
    for model in (record.snapshot.unagan, record.snapshot.melgan, record.snapshot.predictor):
        model.figures["silent_share"] = 0.5

    assert list(references(record)) == [ObjectRef(key="audio/a/b.wav")]


def test_maps_of_messages_are_gone_through() -> None:
    struct = Struct(fields={"a": Value(list_value={"values": [Value(number_value=1.0)]})})

    assert list(references(struct)) == []
