"""The protobuf messages of the Open Inference Protocol, version 2, as far as this service reads and writes them.

They are described here, in protobuf's own notation, and made when this module is imported. Code that ``protoc``
generates runs with a few versions of protobuf alone, and cannot stand beside a library of clients with messages of the
same names. What a message holds besides is passed over, as protobuf does with every unknown field.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from webapp.problems import Problem

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

_SCALARS = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "string": FieldDescriptorProto.TYPE_STRING,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
    "uint64": FieldDescriptorProto.TYPE_UINT64,
}
MESSAGES: Mapping[str, str] = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live = 1;",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready = 1;",
    "ModelReadyRequest": "string name = 1; string version = 2;",
    "ModelReadyResponse": "bool ready = 1;",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name = 1; string version = 2; repeated string extensions = 3;",
    "ModelMetadataRequest": "string name = 1; string version = 2;",
    "TensorMetadata": "string name = 1; string datatype = 2; repeated int64 shape = 3;",
    "ModelMetadataResponse": """
        string name = 1; repeated string versions = 2; string platform = 3;
        repeated TensorMetadata inputs = 4; repeated TensorMetadata outputs = 5;
    """,
    # The contents are a message, InferTensorContents. As bytes, which look the same, they are read once their size is
    # checked: a value of one byte takes four in memory.
    "InferInputTensor": "string name = 1; string datatype = 2; repeated int64 shape = 3; bytes contents = 5;",
    "InferTensorContents": "repeated uint32 uint_contents = 4;",
    "InferRequestedOutputTensor": "string name = 1;",
    "ModelInferRequest": """
        string model_name = 1; string model_version = 2; string id = 3; repeated InferInputTensor inputs = 5;
        repeated InferRequestedOutputTensor outputs = 6; repeated bytes raw_input_contents = 7;
    """,
    "InferOutputTensor": "string name = 1; string datatype = 2; repeated int64 shape = 3;",
    "ModelInferResponse": """
        string model_name = 1; string model_version = 2; string id = 3; repeated InferOutputTensor outputs = 5;
        repeated bytes raw_output_contents = 6;
    """,
    "ModelStatisticsRequest": "string name = 1; string version = 2;",
    "StatisticDuration": "uint64 count = 1; uint64 ns = 2;",
    "InferStatistics": """
        StatisticDuration success = 1; StatisticDuration fail = 2; StatisticDuration queue = 3;
        StatisticDuration compute_input = 4; StatisticDuration compute_infer = 5; StatisticDuration compute_output = 6;
        StatisticDuration cache_hit = 7; StatisticDuration cache_miss = 8;
    """,
    "InferBatchStatistics": """
        uint64 batch_size = 1; StatisticDuration compute_input = 2; StatisticDuration compute_infer = 3;
        StatisticDuration compute_output = 4;
    """,
    "ModelStatistics": """
        string name = 1; string version = 2; uint64 last_inference = 3; uint64 inference_count = 4;
        uint64 execution_count = 5; InferStatistics inference_stats = 6; repeated InferBatchStatistics batch_stats = 7;
    """,
    "ModelStatisticsResponse": "repeated ModelStatistics model_stats = 1;",
    "RepositoryIndexRequest": "string repository_name = 1; bool ready = 2;",
    "ModelIndex": "string name = 1; string version = 2; string state = 3; string reason = 4;",
    "RepositoryIndexResponse": "repeated ModelIndex models = 1;",
}


def parsed(name: str, data: bytes) -> Any:
    """Return a message that was received; Problem ``malformed`` if it cannot be read."""
    try:
        return _CLASSES[name].FromString(data)
    except DecodeError as error:
        raise Problem("malformed", f"The message cannot be read; expected {PACKAGE}.{name}; send that.") from error


def made(name: str, fields: Mapping[str, Any]) -> Any:
    """Return a message with those of the fields that it has."""
    return ParseDict(fields, _CLASSES[name](), ignore_unknown_fields=True)


def _described() -> FileDescriptorProto:
    file = FileDescriptorProto(name="canonistia/open_inference.proto", package=PACKAGE, syntax="proto3")
    for name, text in MESSAGES.items():
        message = file.message_type.add(name=name)
        for line in text.split(";")[:-1]:
            *label, kind, field, _, number = line.split()
            described = message.field.add(name=field, number=int(number))
            described.label = FieldDescriptorProto.LABEL_REPEATED if label else FieldDescriptorProto.LABEL_OPTIONAL
            described.type = _SCALARS.get(kind, FieldDescriptorProto.TYPE_MESSAGE)
            if kind not in _SCALARS:
                described.type_name = f".{PACKAGE}.{kind}"
    return file


def _made_classes() -> dict[str, type[Message]]:
    pool = DescriptorPool()  # of its own: a client's library has messages of the same names in the common one
    pool.AddSerializedFile(_described().SerializeToString())
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in MESSAGES}


_CLASSES = _made_classes()
