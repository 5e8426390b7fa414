"""A sampler as the subclass of torch's that trainers look for, and a DataLoader that knows what the loop has used."""

import json

import numpy as np
import pytest

from ecgcohorts.errors import PlanImpossible, SpecError, StateMismatch
from ecgcohorts.loading.loader import Loader
from ecgcohorts.samplers import InDistributionBatchSampler, PatientPairSampler, RandomBatchSampler

torch = pytest.importorskip("torch")
adapter = pytest.importorskip("ecgcohorts.loading.torch")

PATIENTS = np.repeat(np.arange(80), 2)
COHORTS = PATIENTS % 2


class Rows(torch.utils.data.Dataset):
    """Someone's data set, whose signal is the number of its row."""

    def __getitem__(self, row: int) -> int:
        return row

    def __len__(self) -> int:
        return len(PATIENTS)


def planned(**options) -> InDistributionBatchSampler:
    return InDistributionBatchSampler.from_arrays(
        patients=PATIENTS, cohorts=COHORTS, **{"pairs": 4, "seed": 0} | options
    )


def loader(batches: torch.utils.data.BatchSampler, workers: int = 0) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(Rows(), batch_sampler=batches, num_workers=workers)


def counted(workers: int = 0, **options):
    return adapter.StatefulLoader(loader(adapter.BatchSampler(planned(**options)), workers))


def all_rows(epochs: int = 2, **options) -> list[list[int]]:
    sampler = planned(**options)
    return [sampler.plan(e, s).rows.ravel().tolist() for e in range(epochs) for s in range(sampler.steps(e))]


@pytest.fixture
def as_rank(monkeypatch):
    """Pretend to be a process of several."""

    def pretend(rank: int, world_size: int) -> None:
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: world_size)

    return pretend


def test_it_is_what_others_look_for():
    batches = adapter.BatchSampler(planned())
    assert isinstance(batches, torch.utils.data.BatchSampler)
    assert (batches.batch_size, batches.drop_last, len(batches)) == (8, True, 20)
    found = list(batches)
    assert found == all_rows(1)
    assert {type(row) for rows in found for row in rows} == {int}


def pairs_of(**options) -> PatientPairSampler:
    return PatientPairSampler.from_arrays(patients=PATIENTS, cohorts=COHORTS, seed=0, **options)


def windows_of(**options) -> RandomBatchSampler:
    return RandomBatchSampler.from_arrays(records=160, seed=0, **options)


@pytest.mark.parametrize(
    ("sampler", "size"),
    [(planned(), 8), (pairs_of(pairs=4), 8), (windows_of(batch_size=4), 4), (windows_of(batch_size=4, views=3), 12)],
    ids=["in distribution", "pairs", "records", "windows"],
)
def test_samplers_say_how_large_their_batches_are(sampler, size):
    """As accelerate asks, which leaves out every batch of another length."""
    assert (sampler.batch_size, sampler.drop_last) == (size, True)
    assert {len(rows) for rows in sampler} == {size}
    assert sampler.on_rank(1, 2).batch_size == size // 2


def test_samplers_say_that_batches_may_be_short():
    sampler = pairs_of(pairs=12, last="pad")
    assert (sampler.batch_size, sampler.drop_last) == (24, False)
    assert sorted({len(rows) for rows in sampler}) == [16, 24]
    assert pairs_of(pairs=12, last="wrap").drop_last


@pytest.mark.parametrize("world_size", [2, 4])
def test_each_rank_gets_its_share_and_all_are_on_one_cohort(as_rank, world_size):
    shares = []
    for rank in range(world_size):
        as_rank(rank, world_size)
        shares.append(list(adapter.BatchSampler(planned())))
    assert [[row for part in parts for row in part] for parts in zip(*shares, strict=True)] == all_rows(1)
    for parts in zip(*shares, strict=True):
        assert len({int(COHORTS[row]) for part in parts for row in part}) == 1


def test_the_rank_is_asked_for_again_when_iteration_begins(as_rank):
    """Lightning starts its processes after loaders are built."""
    batches = adapter.BatchSampler(planned())
    assert batches.batch_size == 8
    as_rank(1, 2)
    assert next(iter(batches)) == planned().plan(0, 0, 1, 2).rows.ravel().tolist()
    assert batches.batch_size == 4


@pytest.mark.parametrize("given", [{"world_size": 1}, {"rank": 0, "world_size": 1}, {"rank": 3, "world_size": 4}])
def test_a_rank_given_is_kept(as_rank, given):
    as_rank(1, 2)
    expected = planned().plan(0, 0, given.get("rank", 0), given["world_size"]).rows.ravel().tolist()
    assert next(iter(adapter.BatchSampler(planned(), **given))) == expected
    sampler = planned().on_rank(1, 4)
    assert next(iter(adapter.BatchSampler(sampler))) == planned().plan(0, 0, 1, 4).rows.ravel().tolist()


def test_wrong_ranks_are_refused(as_rank):
    with pytest.raises(SpecError, match="expected both or neither"):
        adapter.BatchSampler(planned(), rank=1)
    as_rank(0, 3)
    with pytest.raises(PlanImpossible, match="for 3 ranks"):
        adapter.BatchSampler(planned())


@pytest.mark.parametrize("others", [{}, {"batch_size": 8, "drop_last": True}])
def test_a_sampler_put_in_by_a_trainer_is_refused(others):
    """Lightning builds batch samplers anew around a DistributedSampler, and every batch would be mixed."""
    theirs = torch.utils.data.DistributedSampler(Rows(), 2, 0)
    with pytest.raises(SpecError, match=r"found DistributedSampler.*use_distributed_sampler=False in Lightning"):
        adapter.BatchSampler(theirs, **others)


ACCELERATED = {
    "in distribution": planned(),
    "pairs": pairs_of(pairs=4),
    "windows": windows_of(batch_size=4, views=3),
    "a batch sampler": adapter.BatchSampler(planned(), world_size=1),
    "wrapped": pairs_of(pairs=12, last="wrap"),
}


@pytest.mark.parametrize("name", ACCELERATED)
def test_accelerate_cuts_batches_where_we_do(name):
    """With split_batches=True; without, it deals whole batches to ranks in turn."""
    shard = pytest.importorskip("accelerate.data_loader").BatchSamplerShard
    sampler = ACCELERATED[name]
    plans = planned() if name == "a batch sampler" else sampler
    expected = [[plans.plan(1, step, rank, 2).rows.ravel().tolist() for step in range(len(plans))] for rank in (0, 1)]
    for rank in (0, 1):
        sampler.set_epoch(1)
        found = [list(rows) for rows in shard(sampler, 2, rank, split_batches=True)]
        assert found == expected[rank]


def test_accelerate_leaves_our_loaders_as_they_are(store, sampler):
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    for batches in (counted(), adapter.TorchBatches(Loader(store, sampler, window=200))):
        assert accelerator.prepare(batches) is batches
        accelerator.register_for_checkpointing(batches)


def test_skipping_batches_as_the_trainer_of_transformers_does():
    """It takes a loader apart to leave out what it has trained on, and forwards the epoch to `batch_sampler.batch_sampler`."""
    accelerate = pytest.importorskip("accelerate")
    batches = adapter.StatefulLoader(
        torch.utils.data.DataLoader(
            Rows(), batch_sampler=adapter.BatchSampler(planned()), num_workers=1, collate_fn=lambda rows: {"rows": rows}
        )
    )
    skipped = accelerate.skip_first_batches(batches, 7)
    skipped.batch_sampler.batch_sampler.set_epoch(1)
    assert [batch["rows"] for batch in skipped] == all_rows()[27:]
    batches.set_epoch(2)
    assert [batch["rows"] for batch in batches] == all_rows(3)[40:]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("used", [0, 5, 20])
def test_a_resumed_run_goes_on_behind_what_the_loop_has_used(workers, used):
    """However much the workers had taken; three before the second epoch so that passes differ."""
    batches = counted(workers)
    for _, _ in zip(range(used), batches, strict=False):
        pass
    state = json.loads(json.dumps(batches.state_dict()))
    again = counted(workers)
    again.load_state_dict(state)
    rest = [batch.tolist() for batch in again]
    assert rest == (all_rows()[used:20] or all_rows()[20:])


@pytest.mark.parametrize(
    "options", [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True, "prefetch_factor": 5}]
)
def test_a_loop_that_broke_off_goes_on_behind_what_it_had(options):
    inner = torch.utils.data.DataLoader(Rows(), batch_sampler=adapter.BatchSampler(planned()), **options)
    batches = adapter.StatefulLoader(inner)
    seen = []
    for batch in batches:
        seen.append(batch.tolist())
        if len(seen) == 5:
            break
    seen += [batch.tolist() for batch in batches]
    seen += [batch.tolist() for batch in batches]
    assert seen == all_rows()


def test_the_loop_may_count_by_itself():
    batches = adapter.BatchSampler(planned())
    iterator = iter(loader(batches, workers=2))
    for _ in range(5):
        next(iterator)
    state = batches.state_dict(consumed=5)
    again = adapter.BatchSampler(planned())
    again.load_state_dict(state)
    assert list(again) == all_rows(1)[5:]
    for wrong in (-1, 19, 400):
        with pytest.raises(ValueError, match=f"consumed={wrong}, expected 0 to the number of batches handed out"):
            batches.state_dict(consumed=wrong)


def test_counting_goes_on_from_a_state_that_was_loaded():
    first = counted()
    for _, _ in zip(range(6), first, strict=False):
        pass
    second = counted(workers=2)
    second.load_state_dict(first.state_dict())
    for _, _ in zip(range(3), second, strict=False):
        pass
    third = counted()
    third.load_state_dict(second.state_dict())
    assert [batch.tolist() for batch in third] == all_rows(1)[9:]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loop_that_sets_every_epoch_resumes_in_the_middle_of_one(workers):
    """And one that looked at a batch beforehand begins at the beginning."""
    first, seen = counted(workers), []
    next(iter(first))
    for epoch in range(2):
        first.set_epoch(epoch)
        for batch in first:
            seen.append(batch.tolist())
            if len(seen) == 27:
                break
    again = counted(workers)
    again.load_state_dict(first.state_dict())
    for epoch in range(1, 3):
        again.set_epoch(epoch)
        seen += [batch.tolist() for batch in again]
    assert seen == all_rows(3)


@pytest.mark.parametrize("through", ["loader", "batch_sampler"])
def test_set_epoch_reaches_the_plan_wherever_a_framework_finds_it(through):
    """Also where workers had already taken batches, and where a loop uses only part of each epoch."""
    batches = counted(workers=2)
    for _, _ in zip(range(5), batches, strict=False):
        pass
    (batches if through == "loader" else batches.batch_sampler).set_epoch(1)
    assert [batch.tolist() for batch in batches] == all_rows()[20:]


def test_set_epoch_reaches_the_plan_through_the_sampler_of_a_batch_sampler():
    """Where Lightning and accelerate look; not in a StatefulLoader, whose state says in which epoch it is."""
    batches = adapter.BatchSampler(planned())
    batches.sampler.set_epoch(1)
    assert list(batches) == all_rows()[20:]
    assert counted().batch_sampler.sampler is None


def test_a_state_of_another_run_is_refused():
    with pytest.raises(StateMismatch, match="seed 0, expected 1"):
        counted(seed=1).load_state_dict(counted().state_dict())


def test_a_loader_without_our_batch_sampler_is_refused():
    with pytest.raises(SpecError, match="whose batch_sampler is BatchSampler, expected ecgcohorts"):
        adapter.StatefulLoader(torch.utils.data.DataLoader(Rows(), batch_size=4))
    with pytest.raises(SpecError, match="InDistributionBatchSampler"):
        adapter.StatefulLoader(loader(planned()))


def test_what_a_framework_asks_of_a_loader_is_that_of_the_data_loader():
    batches = counted(workers=2)
    assert batches.num_workers == 2
    assert isinstance(batches.dataset, Rows)
    assert len(batches) == 20
    assert not isinstance(batches, torch.utils.data.DataLoader)  # or accelerate, Lightning and Ray would cut it
    with pytest.raises(AttributeError, match="'DataLoader' object has no attribute 'no_such_thing'"):
        _ = batches.no_such_thing


@pytest.mark.parametrize("name", ["batch_size", "drop_last"])
def test_what_ray_asks_for_to_build_a_loader_anew_is_refused(name):
    with pytest.raises(AttributeError, match="prepare_data_loader of Ray Train"):
        getattr(counted(), name)


def test_short_batches_are_lists_without_their_empty_places(as_rank):
    options = {"pairs": 12, "last": "pad"}
    whole = [rows.tolist() for rows in planned(**options)]
    assert len({len(rows) for rows in whole}) == 2
    parts = []
    for rank in range(2):
        as_rank(rank, 2)
        parts.append(list(adapter.BatchSampler(planned(**options))))
    assert [first + second for first, second in zip(*parts, strict=True)] == whole


def test_batches_from_a_store_refuse_several_ranks_that_all_read_everything(store, sampler, as_rank):
    as_rank(1, 5)
    with pytest.raises(
        SpecError, match=r"whole batches on rank 1 of 5.*Pass rank=torch.distributed.get_rank.*themselves"
    ):
        next(iter(adapter.TorchBatches(Loader(store, sampler, window=200))))
    batch = next(iter(adapter.TorchBatches(Loader(store, sampler, window=200, rank=1, world_size=5))))
    assert batch.plan.rows.tolist() == sampler.plan(0, 0, 1, 5).rows.tolist()
