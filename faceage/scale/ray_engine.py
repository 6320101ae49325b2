"""Processing shards with Ray Data: a shard is a row, and each actor holds one model."""

import logging
import os
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

from faceage.errors import ConfigError, FaceAgeError
from faceage.scale.engines import Maker, ShardResult, ShardTask, make_shard
from faceage.scale.optional import import_optional


class ShardActor:
    """Makes shards in a worker of Ray; a shard whose worker is lost is made by another one."""

    def __init__(self, maker: Maker) -> None:
        self._maker = maker

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        tasks = [pickle.loads(data) for data in batch["task"]]
        results = [make_shard(self._maker, task, lambda: None) for task in tasks]
        return {"result": [pickle.dumps(result) for result in results]}


def run_on_ray(
    maker: Maker, tasks: Sequence[ShardTask], workers: int | None, address: str | None
) -> Iterator[ShardResult]:
    """Make the shards on a Ray cluster, or on this machine if there is no `address`.

    The machines of a cluster need the package, and the photos and the output folder at the same
    paths. An actor has a GPU where the cluster has any, else a CPU.

    Args:
        workers: actors; None is one per GPU or CPU of the cluster.
        address: of a running cluster, such as "auto" or "ray://head:10001".

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at the address.
        FaceAgeError: the shards could not be processed.
    """
    # Ray's own messages would stand between the results.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray = import_optional("ray", "ray")
    data = import_optional("ray.data", "ray")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level="error",
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"Cannot start Ray at {address or 'this machine'}: {str(error).splitlines()[0]}",
            "Check --address.",
        ) from error
    try:
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        number = min(workers or gpus or int(resources.get("CPU", 1)), len(tasks))
        rows = [{"task": pickle.dumps(task)} for task in tasks]
        results = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            ShardActor,
            fn_constructor_args=(maker,),
            batch_size=1,
            batch_format="numpy",
            compute=data.ActorPoolStrategy(size=number, max_tasks_in_flight_per_actor=1),
            num_gpus=min(1.0, gpus / number) if gpus else None,
        )
        for row in results.iter_rows():
            yield pickle.loads(row["result"])
    except ray.exceptions.RayError as error:
        raise FaceAgeError(
            f"Ray could not process the shards: {str(error).splitlines()[0]}",
            "Run the command again: what is complete is kept.",
        ) from error
    finally:
        ray.shutdown()
