"""A crash dump with the page tables that its kernel printed and the lists that it kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rules.model.memory.sections import SectionTable
from rules.model.memory.snapshots import ListedSections
from tests.rules.witnesses.facts import CORES, facts_of_core


@pytest.fixture(scope="session")
def facts():
    return facts_of_core(CORES[0]).facts


@pytest.fixture(scope="session")
def known(facts):
    """The lists, with sysfs: what it says is online, as the dump has it."""
    listed = facts.get(ListedSections).table
    return ListedSections(replace(listed, blocks_known=True, online=facts.get(SectionTable).online))
