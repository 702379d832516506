"""What the kernel's build says of its release, in a dump: the banner, or the names of the kernel beside the host's."""

import pytest

from parsers.vmcore.dump import Dump
from parsers.vmcore.extract import distill, extract, extract_facts
from parsers.vmcore.memory import UNIT
from tests.parsers.vmcore.conftest import FIXTURES
from tests.rules.patched import Machine, Patched

BUILD = "#1 SMP PREEMPT Debian 7.3.4-1~bpo13+1 (2026-11-15)"


@pytest.fixture(scope="module")
def debian():
    return Machine("boot-7.3-52-on-48.core.zst")


@pytest.fixture
def no_data_symbols(monkeypatch):
    """As without CONFIG_KALLSYMS_ALL."""
    symbol = Dump.symbol
    monkeypatch.setattr(Dump, "symbol", lambda self, name: None if name == "linux_banner" else symbol(self, name))


def names(machine, release, version):
    """Pages with init_uts_ns, by physical address."""
    info = machine.raw.vmcoreinfo
    at = (
        info.symbol("init_uts_ns") + info.offset("uts_namespace.name") - machine.addresses.kimage_voffset
        & (1 << 64) - 1
    )
    page = bytearray(2 * UNIT)
    text = b"".join(word.ljust(65, b"\0") for word in (b"Linux", b"web1", release, version, b"aarch64"))
    page[at % UNIT : at % UNIT + len(text)] = text
    return {at - at % UNIT: page[:UNIT], at - at % UNIT + UNIT: page[UNIT:]}


def test_the_stable_release_of_a_vendors_kernel(debian):
    release = debian.dump().texts.kernel_release
    assert (release.raw, release.vendor, release.upstream) == ("7.3.4+deb13-arm64", "debian", (7, 3, 4))
    assert release.build == BUILD


@pytest.mark.usefixtures("no_data_symbols")
def test_the_banner_is_found_by_its_text(debian):
    assert debian.dump().texts.kernel_release.build == BUILD


@pytest.mark.usefixtures("no_data_symbols")
def test_the_kernels_own_names_where_they_are_in_the_dump(debian):
    pages = names(debian, b"7.3.4+deb13-arm64", b"#7 SMP Debian 7.3.4-7 (2026-11-20)")
    assert debian.dump(pages=pages).texts.kernel_release.build == "#7 SMP Debian 7.3.4-7 (2026-11-20)"
    pages = names(debian, b"7.3.5+deb13-arm64", b"#7 SMP Debian 7.3.5-7 (2026-11-20)")
    assert debian.dump(pages=pages).texts.kernel_release.build == BUILD  # of another kernel: damage


@pytest.mark.usefixtures("no_data_symbols")
def test_a_small_core_has_the_banner_and_not_the_names(debian, tmp_path):
    pages = names(debian, b"7.3.4+deb13-arm64", b"#7 SMP Debian 7.3.4-7 (2026-11-20)")
    memory = Patched(debian.raw.memory, {}, pages, ())
    assert extract_facts(debian.raw, memory=memory, with_nodename=False).texts.kernel_release.build == BUILD
    small = tmp_path / "small"
    distill(FIXTURES / "boot-7.3-52-on-48.core.zst", small)
    assert extract(small).texts.kernel_release.build == BUILD


@pytest.mark.usefixtures("no_data_symbols")
def test_without_banner_and_names_there_is_the_release(debian):
    unit = next(
        unit
        for start, end in zip(*debian.raw.memory.extents, strict=True)
        for unit in range(int(start), int(end), UNIT)
        if b"Linux version 7.3.4+deb13-arm64 (" in debian.raw.memory.read(unit, UNIT)
    )
    release = debian.dump(missing=[unit]).texts.kernel_release
    assert (release.raw, release.build) == ("7.3.4+deb13-arm64", "")
