"""The language of sock_diag: whatever the kernel, or chance, writes."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wssup.errors import MessageError
from wssup.kernel import sockdiag
from wssup.kernel.sockdiag import Family
from wssup.kernel.tcp import TcpSocket, TcpState

few = settings(max_examples=50)


def test_an_error_of_the_kernel_is_an_os_error() -> None:
    """What the kernel refuses (here: a family that does not exist) is its error number."""
    answer = struct.pack("=IHHIIi20x", 40, 2, 0, 5, 0, -errno.ENOENT)
    with pytest.raises(FileNotFoundError, match="sock_diag refuses"):
        sockdiag.answers(answer, Family.IPV4, 5)
    assert sockdiag.answers(answer, Family.IPV4, 6) == ([], False)


@few
@given(st.binary(max_size=300), st.sampled_from(Family))
def test_no_bytes_do_any_harm(data: bytes, family: Family) -> None:
    """Whatever is read, it is an answer, an OSError or a MessageError."""
    for parse in (sockdiag.answers, sockdiag.tcp_answers):
        try:
            found, last = parse(data, family, 1)
        except (OSError, MessageError):
            continue
        assert isinstance(last, bool)
        assert isinstance(found, list)


@few
@given(st.integers(0, 300), st.integers(0, 255))
def test_a_real_answer_cut_or_changed(cut: int, byte: int) -> None:
    """A real answer that was cut off, or has another byte somewhere, is an error or an answer."""
    body = struct.pack("=4B48x5I", 2, 10, 0, 0, 0, 3, 4096, 0, 4711)
    body += struct.pack("=HH9I", 40, 7, *range(9))
    whole = struct.pack("=IHHII", 16 + len(body), 20, 2, 1, 0) + body
    assert sockdiag.answers(whole, Family.IPV4, 1) == ([(4711, 3, 4096, 8)], False)
    at = min(cut, len(whole) - 1)
    for data in (whole[:at], whole[:at] + bytes([byte]) + whole[at + 1 :]):
        try:
            sockdiag.answers(data, Family.IPV4, 1)
        except (OSError, MessageError):
            continue


def answer(family: Family, state: int, info: bytes = b"") -> bytes:
    """A connection as the kernel tells it, with the attribute that it always adds (shutdown)."""
    local, remote = (b"\x7f\0\0\1", b"\x0a\0\0\7")
    if family is Family.IPV6:
        local, remote = bytes(15) + b"\1", b"\xfe\x80" + bytes(13) + b"\7"
    body = struct.pack(">4BHH16s16s", family, state, 0, 0, 8000, 50000, local, remote)
    body += struct.pack("=12x5I", 0, 11, 22, 1000, 4711)
    body += struct.pack("=HHB3x", 5, 8, 0)
    if info:
        body += struct.pack("=HH", 4 + len(info), 2) + info
    return struct.pack("=IHHII", 16 + len(body), 20, 2, 1, 0) + body


@pytest.mark.parametrize("family", [Family.IPV4, Family.IPV6])
def test_a_connection(family: Family) -> None:
    """All fields of a connection, of either family; the age is the younger of data and segment,
    and unknown where it was not asked for.
    """
    (found,), last = sockdiag.tcp_answers(answer(family, TcpState.ESTABLISHED), family, 1)
    size = 4 if family is Family.IPV4 else 16
    assert (len(found.local), len(found.remote), last) == (size, size, False)
    assert found[2::2][:2] == (8000, 50000)
    assert found[5:] == (4711, 1000, 11, 22, None)
    info = struct.pack("=52xII", 9000, 1500) + bytes(180)
    (found,), _ = sockdiag.tcp_answers(answer(family, TcpState.CLOSE_WAIT, info), family, 1)
    assert (found.state, found.heard) == (TcpState.CLOSE_WAIT, 1.5)


@few
@given(st.integers(0, 400), st.integers(0, 255))
def test_a_connection_cut_or_changed(cut: int, byte: int) -> None:
    """An answer that was cut off or has another byte is an error or a list of sockets."""
    whole = answer(Family.IPV4, 8, struct.pack("=52xII", 1, 2) + bytes(180))
    at = min(cut, len(whole) - 1)
    for data in (whole[:at], whole[:at] + bytes([byte]) + whole[at + 1 :]):
        try:
            found, _ = sockdiag.tcp_answers(data, Family.IPV4, 1)
        except (OSError, MessageError):
            continue
        assert all(isinstance(sock, TcpSocket) for sock in found)
