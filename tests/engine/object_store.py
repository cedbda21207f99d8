"""A real object store over HTTP on this machine: moto's S3, which counts what is asked and can be made to fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

#: Of the store's users; it takes any.
KEYS = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
BUCKET = "bucket"
#: Says with which status a request (method and path) fails; ``None``: it is answered.
Fault = Callable[[str, str], int | None]


class _Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        pass


class ObjectStore:
    """The store, with one empty bucket, until ``close``.

    Attributes:
        asked: method and path of each request so far.
        fault: which requests fail. Default: none.
    """

    def __init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self.asked: list[str] = []
        self.fault: Fault = lambda _method, _path: None
        self._thread = threading.Thread(target=self._server.serve_forever, name="object store")
        self._thread.start()
        self.client = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            region_name=KEYS["AWS_DEFAULT_REGION"],
        )
        # What moto keeps is the process's, not the server's.
        for bucket in self.client.list_buckets()["Buckets"]:
            for name in self.names("", bucket["Name"]):
                self.client.delete_object(Bucket=bucket["Name"], Key=name)
            self.client.delete_bucket(Bucket=bucket["Name"])
        self.client.create_bucket(Bucket=BUCKET)

    @property
    def environment(self) -> dict[str, str]:
        """What tells a process where the store is, and who asks."""
        return {**KEYS, "AWS_ENDPOINT_URL": self.url}

    def names(self, under: str = "", bucket: str = BUCKET) -> list[str]:
        """Names of all objects whose names begin so."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=under)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def put(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=name, Body=data)

    def get(self, name: str) -> bytes:
        return bytes(self.client.get_object(Bucket=BUCKET, Key=name)["Body"].read())

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        query = environ.get("QUERY_STRING", "")
        self.asked.append(f"{method} {path}" + (f"?{query}" if query else ""))
        status = self.fault(method, path)
        if status is not None:
            # Else the connection would be left with what nobody has read.
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(f"{status} No", [("Content-Type", "application/xml")])
            return [b"<Error><Code>InternalError</Code><Message>We are broken</Message></Error>"]
        answer: Iterable[bytes] = self._moto(environ, start_response)
        return answer
