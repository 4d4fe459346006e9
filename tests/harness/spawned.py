"""Processes that know each other, forked from a test."""

import torch
import torch.distributed as dist


def processes(count, work, folder):
    """What `work()` returns in each of `count` processes that know each other; what it raises fails the test."""

    def one(rank):
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet{count}", rank=rank, world_size=count)
        torch.save(work(), f"{folder}/{rank}.pt")
        dist.destroy_process_group()

    context = torch.multiprocessing.get_context("fork")
    started = [context.Process(target=one, args=(rank,)) for rank in range(count)]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
        assert process.exitcode == 0
    return [torch.load(f"{folder}/{rank}.pt") for rank in range(count)]
