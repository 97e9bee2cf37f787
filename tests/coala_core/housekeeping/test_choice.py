"""What goes by age and by size, what stays and why, and that nothing which stays lacks an input."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coala_core.housekeeping import Busy, Choice, Inventory, Item, Policy, choose
from coala_core.housekeeping.inventory import Content, Inode
from tests.coala_core.housekeeping.stores import DAY, NOW


def item(name: str, days: float, needs: tuple[str, ...] = (), kind: str = "artifact") -> Item:
    """An item with one file of its own, whose inode is the hash of its name."""
    from pathlib import Path

    inode = Inode(0, hash(name))
    identities = frozenset({name.partition("/")[2], f"sha-{name}"}) if kind == "artifact" else frozenset[str]()
    return Item(kind, name, Path(name), NOW - days * DAY, {inode: 1}, frozenset(needs), identities)  # type: ignore[arg-type]


def inventory(*items: Item, busy: Busy | None = None, size: int = 100) -> Inventory:
    contents = {inode: Content(size, 1) for each in items for inode in each.files}
    return Inventory({each.name: each for each in items}, contents, busy or Busy())


CHAIN = (
    item("triplets/t", 90),
    item("split/s", 80, ("triplets/t",)),
    item("embed/e", 70, ("triplets/t",)),
    item("solve/v", 60, ("embed/e", "split/s")),
)


def gone(choice: Choice) -> list[str]:
    return [verdict.item.name for verdict in choice.removals]


def reasons(choice: Choice) -> dict[str, str]:
    return {verdict.item.name: verdict.reason for verdict in choice.stays}


def test_without_age_and_size_artifacts_stay() -> None:
    choice = choose(inventory(*CHAIN), Policy(NOW))
    assert gone(choice) == []
    assert reasons(choice)["embed/e"] == "used 60.0 days ago; no age or size was given"


def test_an_artifact_is_as_young_as_what_was_made_from_it() -> None:
    # The solve of 60 days ago keeps even the triplets of 90 days ago.
    assert gone(choose(inventory(*CHAIN), Policy(NOW, older_than=65 * DAY))) == []
    choice = choose(inventory(*CHAIN), Policy(NOW, older_than=59 * DAY))
    assert gone(choice) == ["solve/v", "embed/e", "split/s", "triplets/t"]
    assert choice.bytes_freed == choice.bytes_before == 400
    assert choice.removals[0].reason == "not used for 60.0 days"


@pytest.mark.parametrize("identity", ["v", "sha-solve/v"])
def test_what_a_model_needs_stays_with_all_that_it_was_made_from(identity: str) -> None:
    policy = Policy(NOW, older_than=DAY, keep_bytes=0, protected={identity: "model coala, version 3"})
    choice = choose(inventory(*CHAIN, item("solve/other", 50, ("embed/e",))), policy)
    assert gone(choice) == ["solve/other"]
    assert reasons(choice) == {
        "solve/v": "model coala, version 3",
        "embed/e": "solve/v was made from it",
        "split/s": "solve/v was made from it",
        "triplets/t": reasons(choice)["triplets/t"],
    }
    assert reasons(choice)["triplets/t"] in ("embed/e was made from it", "split/s was made from it")


def test_by_size_the_least_recently_used_goes_first_and_no_more_than_needed() -> None:
    items = [item(f"triplets/{days}", days) for days in (1, 2, 3, 4)]
    choice = choose(inventory(*items), Policy(NOW, keep_bytes=250))
    assert gone(choice) == ["triplets/4", "triplets/3"]
    assert (choice.bytes_before, choice.bytes_freed, choice.bytes_after) == (400, 200, 200)
    assert gone(choose(inventory(*items), Policy(NOW, keep_bytes=400))) == []


def test_what_a_run_is_at_work_on_stays() -> None:
    partial = item("solve/w.partial", 5, kind="unfinished")
    busy = Busy(frozenset({"solve-w"}), {"embed/e": "solve-w", "split/s": "solve-w"})
    choice = choose(inventory(*CHAIN, partial, busy=busy), Policy(NOW, older_than=DAY))
    assert gone(choice) == ["solve/v"]
    assert reasons(choice)["solve/w.partial"] == "a run is at work on it"
    assert reasons(choice)["embed/e"] == "a run is making solve-w from it"


def test_what_was_used_since_the_oldest_living_run_began_stays() -> None:
    policy = Policy(NOW, older_than=DAY, busy_since=NOW - 75 * DAY)
    choice = choose(inventory(*CHAIN, item("split/old", 76, ("triplets/t",))), policy)
    assert gone(choice) == ["split/old"]
    assert reasons(choice)["solve/v"] == "used since the oldest run began that is still going"


def test_leftovers_go_after_a_day_and_trash_at_once() -> None:
    items = [
        item("solve/young.partial", 0.9, kind="unfinished"),
        item("solve/old.partial", 1.1, kind="unfinished"),
        item("solve/.trash-1", 0, kind="trash"),
        item("features/s/x.pairs.parquet", 1.1, kind="leftover"),
    ]
    choice = choose(inventory(*items), Policy(NOW))
    assert set(gone(choice)) == {"solve/old.partial", "solve/.trash-1", "features/s/x.pairs.parquet"}
    assert reasons(choice) == {"solve/young.partial": "written 21.6 h ago, perhaps by a run that is still going"}


def test_features_stay_while_an_artifact_that_stays_links_them_and_while_any_embed_is_at_work() -> None:
    shard, free = item("features/s/a", 90, kind="features"), item("features/s/b", 90, kind="features")
    linked = item("embed/e", 10, ("features/s/a",))
    assert gone(choose(inventory(shard, free, linked), Policy(NOW, older_than=30 * DAY))) == ["features/s/b"]
    embedding = Busy(frozenset({"embed-new"}))
    assert gone(choose(inventory(shard, free, linked, busy=embedding), Policy(NOW, older_than=DAY))) == ["embed/e"]


def test_a_file_of_two_names_comes_free_with_the_second() -> None:
    inode = Inode(0, 1)
    shard = Item("features", "features/s/a", item("x", 0).path, NOW - 90 * DAY, {inode: 1})
    user = Item("artifact", "embed/e", item("x", 0).path, NOW - 90 * DAY, {inode: 1}, frozenset({"features/s/a"}))
    both = Inventory({each.name: each for each in (shard, user)}, {inode: Content(100, 2)}, Busy())
    choice = choose(both, Policy(NOW, older_than=DAY))
    assert [(verdict.item.name, verdict.bytes) for verdict in choice.removals] == [
        ("embed/e", 0),
        ("features/s/a", 100),
    ]
    assert choice.bytes_freed == 100


def test_items_that_need_one_another_stay() -> None:
    circle = inventory(item("a/x", 9, ("b/y",)), item("b/y", 9, ("a/x",)))
    choice = choose(circle, Policy(NOW, older_than=DAY))
    assert gone(choice) == []
    assert set(reasons(choice).values()) == {"its inputs refer to one another in a circle"}


@st.composite
def graphs(draw: st.DrawFn) -> list[Item]:
    """Artifacts, each made from any of those before it, used at any time."""
    items: list[Item] = []
    for number in range(draw(st.integers(1, 12))):
        needs = draw(st.sets(st.integers(0, number - 1), max_size=3)) if items else set()
        items.append(item(f"stage/{number}", draw(st.integers(0, 100)), tuple(items[each].name for each in needs)))
    return items


def ancestry(names: set[str], items: list[Item]) -> set[str]:
    """Items with all that they were made from; what comes later in the list is never an input of what came before."""
    found = set(names)
    for each in reversed(items):
        found |= each.needs if each.name in found else set()
    return found


@settings(deadline=None)
@given(
    graphs(), st.none() | st.integers(1, 100), st.none() | st.integers(0, 1200), st.sets(st.integers(0, 11), max_size=2)
)
def test_nothing_that_stays_lacks_what_it_was_made_from_at_any_moment(
    items: list[Item], days: float | None, keep: int | None, safe: set[int]
) -> None:
    named = {f"stage/{number}" for number in safe} & {each.name for each in items}
    policy = Policy(NOW, days and days * DAY, keep, protected={str(number): "a model" for number in safe})
    choice = choose(inventory(*items), policy)
    stays = {verdict.item.name for verdict in choice.stays}
    assert sorted([*gone(choice), *stays]) == sorted(each.name for each in items)
    needs = {each.name: each.needs for each in items}
    for removed in accumulate(([name] for name in gone(choice)), initial=[]):
        left = needs.keys() - set(removed)
        assert [name for name in left if not needs[name] <= left] == []
    needed = ancestry(named, items)
    young = set(needs) if days is None else {each.name for each in items if each.last_used >= NOW - days * DAY}
    by_age = ancestry(named | young, items)
    assert stays == by_age if keep is None else needed <= stays <= by_age
    if keep is not None:
        # One item fewer removed would not have been enough, and all but what is needed goes where it must.
        assert choice.bytes_after <= keep or stays == needed
        assert len(stays) == len(by_age) or choice.bytes_after + 100 > keep
