"""Kernel images: the functions of every layout of kallsyms, and of every wrapping."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import numpy as np
import pytest
import zstandard

from parsers.errors import InputError, PtauditError
from parsers.image.kallsyms_tables import find_kallsyms
from parsers.image.read import read_kernel
from parsers.image.unpack import is_kernel
from parsers.vmcore.kallsyms import Kallsyms
from tests.parsers.image.images import RET, build, deb, elf, rpm, zboot

ERAS = ("5.10", "6.1", "6.4", "7.0")
FUNCTIONS: dict[str, list[int | str]] = {
    "vmemmap_populate_basepages": [RET],
    "vmemmap_populate_hugepages": [RET],
    "vmemmap_verify": [RET],
    "vmemmap_populate": [0xD503201F, "vmemmap_populate_basepages", "vmemmap_populate_hugepages", RET],
    "vmemmap_populate.cold": ["vmemmap_populate_basepages", RET],
    "vmemmap_populate_other": [RET],
}
WRAPPED = {
    "Image": lambda image: image,
    "gzip": lambda image: gzip.compress(image, 1),
    "xz": lambda image: lzma.compress(image, preset=0),
    "bzip2": lambda image: bz2.compress(image, 1),
    "zstd": lambda image: zstandard.compress(image, 1),
    "zboot": zboot,
    "deb": deb,
    "deb without packing": lambda image: deb(image, "./usr/lib/modules/6.12/vmlinuz"),
    "rpm": rpm,
    "vmlinux": elf,
    "vmlinux.gz": lambda image: gzip.compress(elf(image), 1),
}


@pytest.mark.parametrize("era", ERAS)
def test_functions_and_their_calls_are_found_in_every_layout(era: str) -> None:
    code = read_kernel(build(FUNCTIONS, era), path="vmlinuz")
    assert [one.name for one in code.functions["vmemmap_populate"]] == ["vmemmap_populate", "vmemmap_populate.cold"]
    assert code.functions["vmemmap_populate"][0].words.tolist()[0::3] == [0xD503201F, RET]
    assert code.nr_calls("vmemmap_populate", "vmemmap_populate_basepages") == 2
    assert code.nr_calls("vmemmap_populate", "vmemmap_populate_hugepages") == 1
    assert code.nr_calls("vmemmap_populate", "vmemmap_verify") == 0
    assert code.get("unmap_hotplug_range") == ()
    assert (code.release, code.page_size) == ("6.12.113-test", 4096)


@pytest.mark.parametrize("form", WRAPPED)
def test_every_wrapping_is_opened(form: str) -> None:
    wrapped = WRAPPED[form](build(FUNCTIONS))
    code = read_kernel(wrapped, path="kernel")
    assert code.nr_calls("vmemmap_populate", "vmemmap_populate_basepages") == 2
    assert code.path.startswith("kernel")
    packed = form in {"gzip", "xz", "bzip2", "zstd", "vmlinux.gz"}
    assert is_kernel(wrapped[:4096]) != packed


@pytest.mark.parametrize(("page_size", "era"), [(4096, "5.10"), (16384, "6.4"), (65536, "7.0")])
def test_the_header_says_the_page_size(page_size: int, era: str) -> None:
    assert read_kernel(build(FUNCTIONS, era, page_size), path="Image").page_size == page_size


@pytest.mark.parametrize("era", ERAS)
def test_the_tables_are_those_that_were_written(era: str) -> None:
    image = np.frombuffer(build(FUNCTIONS, era), np.uint8)
    tables = find_kallsyms(image)
    assert tables is not None
    assert (tables.relative_base is None) == (era == "7.0")
    data = image.tobytes()

    class Reader:
        def read(self, va: int, size: int) -> bytes:
            return data[va : va + size]

        peek = read

    symbols = Kallsyms(Reader(), tables)
    assert symbols("filler_4999") == max(
        one[1] for one in symbols.functions("filler_4999") or [("", symbols("filler_4999"), 0)]
    )
    assert symbols("nothing_like_it") is None


@pytest.mark.parametrize("data", [b"", b"MZ", b"text\n" * 40, bytes(4096), deb(b"no kernel"), rpm(b"no kernel")])
def test_what_is_not_a_kernel_is_an_error(data: bytes) -> None:
    with pytest.raises(InputError):
        read_kernel(data, path="file")


def test_an_image_without_kallsyms_says_so() -> None:
    image = build(FUNCTIONS)
    with pytest.raises(InputError, match="kallsyms"):
        read_kernel(image[:0x10000] + bytes(0x10000), path="Image")


def test_a_shared_library_is_not_a_kernel() -> None:
    library = bytearray(elf(build(FUNCTIONS)))
    library[80:88] = (0).to_bytes(8, "little")
    with pytest.raises(InputError, match="not a kernel by its addresses"):
        read_kernel(bytes(library), path="lib.so")


@pytest.mark.parametrize("form", ["Image", "zboot", "deb", "rpm", "vmlinux"])
def test_cut_short_is_an_error_or_a_result(form: str) -> None:
    whole = WRAPPED[form](build(FUNCTIONS))
    for length in range(0, len(whole), max(len(whole) // 25, 1)):
        try:
            read_kernel(whole[:length], path="cut")
        except PtauditError:
            continue


def test_damaged_bytes_are_an_error_or_a_result() -> None:
    image = build(FUNCTIONS, "6.1")
    random = np.random.default_rng(7)
    for _ in range(20):
        data = np.frombuffer(image, np.uint8).copy()
        places = random.integers(0x10000, data.size, 20)
        data[places] ^= random.integers(1, 256, 20).astype(np.uint8)
        try:
            read_kernel(data.tobytes(), path="damaged")
        except PtauditError:
            continue


def test_audit_takes_an_image_alone(tmp_path: Path) -> None:
    from analyzer.audit import audit  # noqa: PLC0415
    from analyzer.sources.read import Request  # noqa: PLC0415

    for form in ("Image", "gzip", "deb", "vmlinux"):
        path = tmp_path / f"kernel-{len(form)}"
        path.write_bytes(WRAPPED[form](build(FUNCTIONS)))
        report = audit(Request((path,)))
        assert [one.kind for one in report.sources.sources if one.kind != "archive"] == ["kernel"], form
        (finding,) = [one for one in report.findings if one.rule.code == "ENV-01"]
        assert "Fixed, by its code: d4234d131b0a" in finding.hit.message
        (state,) = [one for one in report.bugs if one.bug.commit == "d4234d131b0a"]
        assert (state.state, state.by) == ("fixed", "code")
