"""A server in front of a Spark Connect server that answers as others do: it refuses to cache, as
Databricks' serverless does, or names another version."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from pyspark.sql.connect import proto

REFUSAL = "[NOT_SUPPORTED_WITH_SERVERLESS] PERSIST TABLE is not supported on serverless compute."


class _Proxy(grpc.GenericRpcHandler):
    def __init__(self, channel: grpc.Channel, version: str | None) -> None:
        self._channel, self._version = channel, version
        self.refused = 0

    def service(self, call: Any) -> Any:
        method = call.method
        if method.endswith(("/ExecutePlan", "/ReattachExecute")):
            stream = self._channel.unary_stream(method)
            return grpc.unary_stream_rpc_method_handler(lambda request, _: stream(request))
        forward = self._channel.unary_unary(method)

        def answer(request: bytes, context: Any) -> bytes:
            if not method.endswith("/AnalyzePlan"):
                return bytes(forward(request))
            asked = proto.AnalyzePlanRequest.FromString(request)
            if asked.HasField("persist"):
                self.refused += 1
                context.abort_with_status(rpc_status.to_status(_refusal()))
            answered = forward(request)
            if self._version is None or not asked.HasField("spark_version"):
                return bytes(answered)
            changed = proto.AnalyzePlanResponse.FromString(answered)
            changed.spark_version.version = self._version
            return bytes(changed.SerializeToString())

        return grpc.unary_unary_rpc_method_handler(answer)


def _refusal() -> Status:
    info = ErrorInfo(
        reason="org.apache.spark.sql.AnalysisException",
        domain="org.apache.spark",
        metadata={
            "classes": '["org.apache.spark.sql.AnalysisException"]',
            "errorClass": "NOT_SUPPORTED_WITH_SERVERLESS",
        },
    )
    details = AnyMessage()
    details.Pack(info)
    return Status(code=grpc.StatusCode.INTERNAL.value[0], message=REFUSAL, details=[details])


@contextmanager
def proxy(server: str, *, version: str | None = None) -> Iterator[tuple[str, _Proxy]]:
    """The proxy's URL, and the proxy itself: `refused` counts the frames that it did not cache."""
    with grpc.insecure_channel(server.removeprefix("sc://")) as channel:
        handler = _Proxy(channel, version)
        listener = grpc.server(ThreadPoolExecutor(8), handlers=[handler])
        port = listener.add_insecure_port("127.0.0.1:0")
        listener.start()
        try:
            yield f"sc://127.0.0.1:{port}", handler
        finally:
            listener.stop(None).wait()
