"""Kernel images: what a vmlinuz, a vmlinux or a kernel package says about the code in it.

Start at `parsers.image.read.read_kernel`; what comes out is a `parsers.image.code.KernelCode`, the same that a crash
dump gives.
"""
