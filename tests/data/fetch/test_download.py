"""One file, fetched from a server that misbehaves as real ones do."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

from lesiontk.data.fetch.download import DownloadPolicy
from lesiontk.data.fetch.fetch import fetch_source
from lesiontk.data.fetch.sources import OfficialSource, RemoteFile
from lesiontk.errors import DataError, MissingRequirementError, UsageError
from tests.data.local_server import BODY, OTHER, Page, Server, md5, names, sha256, source_of


def test_a_fresh_fetch_verifies_pins_and_reports(
    server: Server, one: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    seen: list[tuple[str, int, int | None]] = []
    result = fetch_source(
        one, tmp_path / "d", policy=policy, progress=lambda *report: seen.append(report)
    )
    (file,) = result.files
    assert file.path.read_bytes() == BODY
    assert (file.origin, file.bytes, file.sha256) == ("downloaded", len(BODY), sha256(BODY))
    assert file.verified_by == ("md5 from the list of sources",)
    assert names(tmp_path / "d") == ["a.bin", "checksums.json"]
    assert result.source.notice.splitlines()[1:3] == ["Licence: CC BY-NC", "Cite: Someone 2018"]
    assert seen[0] == ("download a.bin", 0, len(BODY))
    assert ("download a.bin", len(BODY), len(BODY)) in seen
    assert seen[-1] == ("verify a.bin", len(BODY), len(BODY))
    assert not server.requests[0][1]["User-Agent"].startswith("Python")


def test_a_verified_file_is_not_downloaded_again(
    server: Server, one: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    fetch_source(one, tmp_path, policy=policy)
    pins = (tmp_path / "checksums.json").stat().st_ino
    again = fetch_source(one, tmp_path, policy=policy)
    assert again.files[0].origin == "present"
    assert server.paths() == ["/a.bin"]
    assert (tmp_path / "checksums.json").stat().st_ino == pins


def test_a_broken_download_goes_on_where_it_stopped(
    server: Server, one: OfficialSource, tmp_path: Path, policy: DownloadPolicy, slept: list[float]
) -> None:
    server.pages["/a.bin"].cuts = [4000, 100]
    assert fetch_source(one, tmp_path, policy=policy).files[0].path.read_bytes() == BODY
    assert server.ranges() == [None, "bytes=4000-", "bytes=4100-"]
    assert server.requests[1][1]["If-Range"] == '"first"'
    assert slept == [1.0, 2.0]


def test_a_body_that_stalls_is_asked_for_again(
    server: Server, one: OfficialSource, tmp_path: Path, policy: DownloadPolicy, slept: list[float]
) -> None:
    server.pages["/a.bin"] = Page(cuts=[4000], stalls=True)
    hasty = replace(policy, timeout=1.0)
    assert fetch_source(one, tmp_path, policy=hasty).files[0].path.read_bytes() == BODY
    assert server.ranges() == [None, "bytes=4000-"]
    assert slept == [1.0]


def test_an_answer_that_is_not_http_is_asked_for_again(
    server: Server, one: OfficialSource, tmp_path: Path, policy: DownloadPolicy, slept: list[float]
) -> None:
    server.pages["/a.bin"].raw = b"nonsense\r\n\r\n"
    assert fetch_source(one, tmp_path, policy=policy).files[0].path.read_bytes() == BODY
    assert slept == [1.0]


def test_a_download_that_keeps_breaking_is_resumed_by_the_next_call(
    server: Server, one: OfficialSource, tmp_path: Path, policy: DownloadPolicy, slept: list[float]
) -> None:
    server.pages["/a.bin"].cuts = [10, 10, 10, 10]
    with pytest.raises(MissingRequirementError, match=r"try 4 of 4: broke off after 40 of 10240"):
        fetch_source(one, tmp_path, policy=policy)
    assert slept == [1.0, 2.0, 4.0]
    assert names(tmp_path) == ["a.bin.part", "a.bin.part.json"]
    assert fetch_source(one, tmp_path, policy=policy).files[0].path.read_bytes() == BODY
    assert server.ranges()[-1] == "bytes=40-"
    assert names(tmp_path) == ["a.bin", "checksums.json"]


def test_a_part_of_an_older_version_is_given_up(
    server: Server, unpublished: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    server.pages["/a.bin"].cuts = [5000]
    with pytest.raises(MissingRequirementError):
        fetch_source(unpublished, tmp_path, policy=replace(policy, tries=1))
    server.pages["/a.bin"] = Page(OTHER, etag='"second"')
    assert fetch_source(unpublished, tmp_path, policy=policy).files[0].path.read_bytes() == OTHER
    assert server.ranges() == [None, "bytes=5000-"]


def test_a_part_from_another_address_is_given_up(
    server: Server, unpublished: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    server.pages["/a.bin"].cuts = [5000]
    server.pages["/moved.bin"] = Page(OTHER)
    with pytest.raises(MissingRequirementError):
        fetch_source(unpublished, tmp_path, policy=replace(policy, tries=1))
    moved = source_of(RemoteFile(name="a.bin", url=f"{server.url}/moved.bin"))
    assert fetch_source(moved, tmp_path, policy=policy).files[0].path.read_bytes() == OTHER
    assert server.ranges() == [None, None]


@pytest.mark.parametrize(
    "changes",
    [
        {"ranges": False},
        {"etag": '"second"', "headers": {"Accept-Ranges": "none"}},
        {"range_start_shift": 1},
        {"range_status": 416},
    ],
    ids=["ignores ranges", "changed meanwhile", "sends another range", "refuses the range"],
)
def test_a_part_that_cannot_be_continued_is_started_anew(
    server: Server,
    one: OfficialSource,
    tmp_path: Path,
    policy: DownloadPolicy,
    changes: dict[str, Any],
) -> None:
    server.pages["/a.bin"].cuts = [5000]
    with pytest.raises(MissingRequirementError):
        fetch_source(one, tmp_path, policy=replace(policy, tries=1))
    server.pages["/a.bin"] = replace(Page(), **changes)
    assert fetch_source(one, tmp_path, policy=policy).files[0].path.read_bytes() == BODY


def test_a_server_that_ignores_if_range_cannot_mix_two_versions(
    server: Server, unpublished: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    server.pages["/a.bin"].cuts = [5000]
    with pytest.raises(MissingRequirementError):
        fetch_source(unpublished, tmp_path, policy=replace(policy, tries=1))
    # Its own If-Range check is passed by `modified`, which equals the old validator.
    server.pages["/a.bin"] = Page(OTHER, etag='"second"', modified='"first"')
    assert fetch_source(unpublished, tmp_path, policy=policy).files[0].path.read_bytes() == OTHER
    assert server.ranges() == [None, "bytes=5000-", None]


@pytest.mark.parametrize(
    ("etag", "modified", "condition"),
    [
        ('W/"weak"', "Mon, 01 Jan 2018 00:00:00 GMT", "Mon, 01 Jan 2018 00:00:00 GMT"),
        ("", "", None),
    ],
)
def test_a_part_without_a_strong_validator_is_resumed_where_a_checksum_watches(
    server: Server,
    one: OfficialSource,
    tmp_path: Path,
    policy: DownloadPolicy,
    etag: str,
    modified: str,
    condition: str | None,
) -> None:
    server.pages["/a.bin"] = Page(etag=etag, modified=modified, cuts=[5000])
    assert fetch_source(one, tmp_path, policy=policy).files[0].path.read_bytes() == BODY
    assert server.ranges() == [None, "bytes=5000-"]
    assert server.requests[1][1].get("If-Range") == condition


def test_a_part_with_neither_validator_nor_checksum_is_started_anew(
    server: Server, unpublished: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    server.pages["/a.bin"] = Page(etag="", cuts=[5000])
    assert fetch_source(unpublished, tmp_path, policy=policy).files[0].path.read_bytes() == BODY
    assert server.ranges() == [None, None]


def test_a_part_that_is_whole_needs_no_request(
    server: Server, one: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    server.pages["/a.bin"].cuts = [5000]
    with pytest.raises(MissingRequirementError):
        fetch_source(one, tmp_path, policy=replace(policy, tries=1))
    (tmp_path / "a.bin.part").write_bytes(BODY)
    fetch_source(one, tmp_path, policy=policy)
    assert len(server.requests) == 1


def test_a_part_longer_than_the_file_is_started_anew(
    server: Server, one: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    server.pages["/a.bin"].cuts = [5000]
    with pytest.raises(MissingRequirementError):
        fetch_source(one, tmp_path, policy=replace(policy, tries=1))
    (tmp_path / "a.bin.part").write_bytes(BODY + b"more")
    assert fetch_source(one, tmp_path, policy=policy).files[0].path.read_bytes() == BODY
    assert server.ranges() == [None, "bytes=10244-", None]


def test_a_body_of_unannounced_length_is_measured_against_the_published_size(
    server: Server, one: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    server.pages["/a.bin"] = Page(length=False, cuts=[3000])
    assert fetch_source(one, tmp_path, policy=policy).files[0].path.read_bytes() == BODY
    assert server.ranges() == [None, "bytes=3000-"]


def test_wrong_content_is_kept_as_bad_and_said_in_full(
    server: Server, one: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    server.pages["/a.bin"].body = OTHER
    for number in ("", "-2"):
        with pytest.raises(DataError) as caught:
            fetch_source(one, tmp_path, policy=policy)
        assert f"md5 is {md5(OTHER)}, expected {md5(BODY)} (the list of sources)" in str(
            caught.value
        )
        assert (tmp_path / f"a.bin.bad{number}").read_bytes() == OTHER
    assert names(tmp_path) == ["a.bin.bad", "a.bin.bad-2"]
    server.pages["/a.bin"].body = BODY
    assert fetch_source(one, tmp_path, policy=policy).files[0].path.read_bytes() == BODY


def test_a_size_other_than_published_is_refused_before_the_body(
    server: Server, one: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    server.pages["/a.bin"].body = BODY + b"more"
    with pytest.raises(DataError, match=r"has 10244 bytes; expected 10240\. Not"):
        fetch_source(one, tmp_path, policy=policy)
    assert names(tmp_path) == []


def test_a_full_disk_is_noticed_before_the_body(
    one: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    small = replace(policy, free_bytes=lambda folder: 10_239)
    with pytest.raises(
        MissingRequirementError, match=r"needs 10240 bytes more and .* has 10239 free"
    ):
        fetch_source(one, tmp_path, policy=small)
    assert names(tmp_path) == []


def test_a_missing_file_is_not_asked_for_twice_and_the_way_by_hand_is_told(
    server: Server, one: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    del server.pages["/a.bin"]
    with pytest.raises(DataError) as caught:
        fetch_source(one, tmp_path, policy=policy)
    assert "received HTTP 404" in str(caught.value)
    assert f"save {server.url}/a.bin as {tmp_path / 'a.bin'}" in str(caught.value)
    assert "https://home.example" in str(caught.value)
    assert server.paths() == ["/a.bin"]


def test_a_challenge_page_is_not_taken_for_the_file(
    server: Server, one: OfficialSource, tmp_path: Path, policy: DownloadPolicy
) -> None:
    server.pages["/a.bin"].statuses = [202]
    with pytest.raises(DataError, match=r"received HTTP 202 .* requires a browser"):
        fetch_source(one, tmp_path, policy=policy)
    assert names(tmp_path) == []


def test_trouble_that_may_pass_is_waited_out(
    server: Server, one: OfficialSource, tmp_path: Path, policy: DownloadPolicy, slept: list[float]
) -> None:
    server.pages["/a.bin"].statuses = [500, 503]
    assert fetch_source(one, tmp_path, policy=policy).files[0].path.read_bytes() == BODY
    assert slept == [1.0, 2.0]


@pytest.mark.parametrize(
    ("asked", "waited"), [("7", 7.0), ("86400", 120.0), ("soon", 1.0), ("\u00b2", 1.0)]
)
def test_the_wait_that_a_server_asks_for_is_kept_within_reason(
    server: Server,
    one: OfficialSource,
    tmp_path: Path,
    policy: DownloadPolicy,
    slept: list[float],
    asked: str,
    waited: float,
) -> None:
    server.pages["/a.bin"] = Page(statuses=[429], headers={"Retry-After": asked})
    fetch_source(one, tmp_path, policy=policy)
    assert slept == [waited]


def test_no_network_names_the_host_and_a_file_placed_by_hand_is_picked_up(
    tmp_path: Path, policy: DownloadPolicy, slept: list[float]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = f"http://127.0.0.1:{listener.getsockname()[1]}/a.bin"
    source = source_of(RemoteFile(name="a.bin", url=closed, md5=md5(BODY)))
    with pytest.raises(MissingRequirementError) as caught:
        fetch_source(source, tmp_path, policy=policy)
    assert "127.0.0.1 cannot be reached" in str(caught.value)
    assert f"save {closed} as {tmp_path / 'a.bin'}" in str(caught.value)
    assert len(slept) == 3
    (tmp_path / "a.bin").write_bytes(BODY)
    (file,) = fetch_source(source, tmp_path, policy=policy).files
    assert (file.origin, file.verified_by) == ("present", ("md5 from the list of sources",))


def test_an_unknown_host_is_not_tried_again(
    tmp_path: Path,
    policy: DownloadPolicy,
    slept: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    source = source_of(RemoteFile(name="a.bin", url="https://no-such-host.example/a.bin"))
    with pytest.raises(MissingRequirementError, match=r"no-such-host\.example cannot be reached"):
        fetch_source(source, tmp_path, policy=policy)
    assert slept == []


def test_a_server_that_does_not_answer_is_given_up(
    tmp_path: Path, policy: DownloadPolicy, slept: list[float]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.bin"
        source = source_of(RemoteFile(name="a.bin", url=url))
        with pytest.raises(MissingRequirementError, match="timed out"):
            fetch_source(source, tmp_path, policy=replace(policy, tries=2, timeout=0.05))
    assert slept == [1.0]


@pytest.mark.parametrize("location", ["{url}/real.bin", "real.bin", "{url}/real.bin?name=a b"])
def test_redirects_are_followed_and_keep_the_range(
    server: Server, one: OfficialSource, tmp_path: Path, policy: DownloadPolicy, location: str
) -> None:
    server.pages["/a.bin"].location = location.format(url=server.url)
    server.pages["/real.bin"] = Page(cuts=[6000])
    assert fetch_source(one, tmp_path, policy=policy).files[0].path.read_bytes() == BODY
    assert server.ranges() == [None, None, "bytes=6000-", "bytes=6000-"]


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/a",
        "data:,x",
        "http://plain.example/a",
        "http://[",
        "",
    ],
)
def test_redirects_to_anything_but_the_web_in_private_are_refused(
    server: Server, one: OfficialSource, tmp_path: Path, policy: DownloadPolicy, location: str
) -> None:
    server.pages["/a.bin"].location = location or "x"
    server.pages["/x"] = Page(location="/a.bin")
    expected = "is not allowed" if location else "has more than 10 redirects"
    with pytest.raises(DataError, match=expected):
        fetch_source(one, tmp_path, policy=policy)
    assert names(tmp_path) == []


def test_a_public_server_may_not_redirect_to_this_machine(
    server: Server, tmp_path: Path, policy: DownloadPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.pages["/a.bin"] = Page(location=f"{server.url}/real.bin")
    server.pages["/real.bin"] = Page()

    def send_locally(self: HTTPAdapter, request: PreparedRequest, **options: Any) -> Response:
        public = str(request.url)
        request.url = public.replace("https://public.example", server.url)
        response = send(self, request, **options)
        response.url = public
        return response

    send = HTTPAdapter.send
    monkeypatch.setattr(HTTPAdapter, "send", send_locally)
    source = source_of(RemoteFile(name="a.bin", url="https://public.example/a.bin"))
    with pytest.raises(DataError, match="is not allowed"):
        fetch_source(source, tmp_path, policy=policy)
    assert server.paths() == ["/a.bin"]


def test_a_proxy_is_not_asked_for_this_machine(
    one: OfficialSource, tmp_path: Path, policy: DownloadPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    assert fetch_source(one, tmp_path, policy=policy).files[0].path.read_bytes() == BODY


def test_waiting_is_bounded_by_a_sensible_policy() -> None:
    builders: list[Callable[[], DownloadPolicy]] = [
        lambda: DownloadPolicy(tries=0),
        lambda: DownloadPolicy(timeout=0),
    ]
    for build in builders:
        with pytest.raises(UsageError, match="expected 1 or more"):
            build()
