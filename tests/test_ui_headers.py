"""What every answer says to browsers, and where uploads are kept."""

from __future__ import annotations

import pytest
from starlette.formparsers import MultiPartParser

from brainseg.ui.headers import FRAME_ANCESTORS, ancestors, headers, keep_uploads_in_memory


def test_no_other_page_may_show_the_app_in_a_frame_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FRAME_ANCESTORS, raising=False)
    sent = headers("'self'", ancestors())
    assert sent["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in sent["Content-Security-Policy"]
    assert "script-src 'self';" in sent["Content-Security-Policy"]


def test_a_page_that_may_show_the_app_in_a_frame_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FRAME_ANCESTORS, " https://huggingface.co ")
    sent = headers("'self'", ancestors())
    assert "frame-ancestors https://huggingface.co" in sent["Content-Security-Policy"]
    assert "X-Frame-Options" not in sent


def test_uploads_are_held_in_memory_up_to_the_largest_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MultiPartParser, "spool_max_size", 2**20)
    keep_uploads_in_memory(2**28)
    assert MultiPartParser.spool_max_size == 2**28


def test_a_parser_without_that_limit_stops_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(MultiPartParser, "spool_max_size")
    with pytest.raises(RuntimeError, match="Starlette parses uploads in another way"):
        keep_uploads_in_memory(2**28)
