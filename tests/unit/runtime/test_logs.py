import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
import urllib3

from services.runtime.call import Call, serving
from services.runtime.logs import REDACTED, configure_logging
from services.runtime.settings import RuntimeSettings


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers, root.level)
    yield
    root.handlers, root.level = before


def configured(**settings: str) -> io.StringIO:
    stream = io.StringIO()
    configure_logging(RuntimeSettings(**settings), stream)
    return stream


def test_a_line_is_one_json_object_with_the_ids_of_the_call() -> None:
    stream = configured()
    with serving(Call("r-1")), structlog.contextvars.bound_contextvars(run_id="run-2"):
        structlog.get_logger().info("stage done", stage="extract", files=3)
    line = json.loads(stream.getvalue())
    assert line.pop("time")
    assert line == {
        "event": "stage done",
        "level": "info",
        "stage": "extract",
        "files": 3,
        "request_id": "r-1",
        "run_id": "run-2",
    }


def test_what_others_log_comes_out_in_the_same_form() -> None:
    stream = configured()
    logging.getLogger("somebody").warning("hello %s", "you")
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"]) == ("hello you", "warning")


def test_tries_that_are_followed_by_others_are_not_told() -> None:
    stream = configured()
    pool = urllib3.PoolManager(retries=urllib3.Retry(total=2))
    with pytest.raises(urllib3.exceptions.MaxRetryError):
        pool.request("GET", "http://127.0.0.1:1/")
    assert stream.getvalue() == ""


def test_lines_below_the_level_are_left_out() -> None:
    stream = configured(log_level="warning")
    structlog.get_logger().info("quiet")
    logging.getLogger("somebody").info("quiet")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_secrets_are_redacted(log_format: str) -> None:
    stream = configured(log_format=log_format)
    structlog.get_logger().info("call", authorization="s3cr3t", credential="s3cr3t")
    logging.getLogger("somebody").info("sent Authorization: Bearer s3cr3t")
    try:
        raise ValueError("Bearer s3cr3t is wrong")  # noqa: TRY301
    except ValueError:
        structlog.get_logger().exception("failed")
    assert "s3cr3t" not in stream.getvalue()
    assert REDACTED in stream.getvalue()
    assert "failed" in stream.getvalue()


def test_console_lines_are_for_people() -> None:
    stream = configured(log_format="console")
    structlog.get_logger().info("stage done", stage="extract")
    assert "stage done" in stream.getvalue()
    assert "{" not in stream.getvalue()
