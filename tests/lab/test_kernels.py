"""The lab's kernels: what kernels.toml says can be built, fetched and explored."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

from fixtures.lab.binary import MODULES, load_order, packages
from fixtures.lab.explore import kernels
from fixtures.lab.explore.kernels import HERE, find_kernel, make_initrd

KERNELS = tomllib.loads((HERE.parent / "kernels.toml").read_text())["kernels"]
SIMULATED = """Inst linux-sysctl-defaults (4.12 Debian:13/stable [all])
Inst linux-binary-7.3.4+deb13-arm64-16k (7.3.4-1~bpo13+1 Debian Backports:stable-backports [arm64])
Inst linux-modules-7.3.4+deb13-arm64-16k (7.3.4-1~bpo13+1 Debian Backports:stable-backports [arm64])
Inst linux-image-arm64-16k (7.3.4-1~bpo13+1 Debian Backports:stable-backports [arm64])
Conf linux-binary-7.3.4+deb13-arm64-16k (7.3.4-1~bpo13+1 Debian Backports:stable-backports [arm64])
"""
DEPENDENCIES = """kernel/nvdimm/nd_pmem.ko.xz: kernel/nvdimm/nd_btt.ko.xz kernel/nvdimm/libnvdimm.ko.xz
kernel/nvdimm/nd_btt.ko.xz: kernel/nvdimm/libnvdimm.ko.xz
kernel/nvdimm/libnvdimm.ko.xz:
kernel/hw_random/virtio-rng.ko:
"""


def test_packages_of_a_kernel_are_those_with_a_version_in_their_name():
    assert packages(SIMULATED) == [
        ("linux-binary-7.3.4+deb13-arm64-16k", "7.3.4-1~bpo13+1"),
        ("linux-modules-7.3.4+deb13-arm64-16k", "7.3.4-1~bpo13+1"),
    ]


def test_modules_load_after_what_they_need():
    order = [path.rpartition("/")[2] for path in load_order(DEPENDENCIES)]
    assert order == ["virtio-rng.ko", "libnvdimm.ko.xz", "nd_btt.ko.xz", "nd_pmem.ko.xz"]
    assert load_order(DEPENDENCIES, ("absent",)) == []
    assert len(set(MODULES)) == len(MODULES)


def test_kernel_is_built_or_fetched():
    for name, kernel in KERNELS.items():
        assert ("source" in kernel) != ("binary" in kernel), name
        assert ("binary" in kernel) == ("suite" in kernel), name


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "LAB", tmp_path)
    (tmp_path / "initrd.gz").write_bytes(b"base")
    folder = tmp_path / "kernels/debian-7.3-16k"
    (folder / "modules").mkdir(parents=True)
    (folder / "modules/nfit.ko").write_bytes(b"module")
    (folder / "modules/modules.order").write_text("nfit.ko\n")
    (folder / "Image").write_bytes(bytes(24) + b"\x0c" + bytes(31) + b"ARMd" + bytes(4))
    (tmp_path / "Image.gz").write_bytes(b"\x1f\x8b" + bytes(80))
    return tmp_path


def test_kernel_is_found_by_name_or_image(lab):
    found = find_kernel("debian-7.3-16k")
    assert (found.page, found.cpu, found.modules) == (16384, "cortex-a76", lab / "kernels/debian-7.3-16k/modules")
    assert find_kernel(str(lab / "kernels/debian-7.3-16k/Image")).name.startswith("image-")
    for missing in ("6.12-4k", str(lab / "nothing"), str(lab / "Image.gz")):
        with pytest.raises(SystemExit, match="explore: "):
            find_kernel(missing)


@pytest.mark.slow
def test_initramfs_has_programs_and_modules(lab):
    made, again = (make_initrd(find_kernel("debian-7.3-16k"), lab / f"{n}/initrd.gz").read_bytes() for n in (1, 2))
    assert made.startswith(b"base")
    assert made == again
    listed = subprocess.run(
        ["cpio", "-t", "--quiet"],
        input=subprocess.run(["gzip", "-dc"], input=made[4:], capture_output=True, check=True).stdout,
        capture_output=True,
        check=True,
    ).stdout.decode()
    names = ["init", "lib.sh", "collect.sh", "probes.sh", "modules/nfit.ko", "modules.order"]
    assert set(names) <= set(listed.split())


def test_commands_name_themselves():
    for module in ("fixtures.lab.explore",):
        done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True)
        assert f"python -m {module} KERNEL" in done.stdout
