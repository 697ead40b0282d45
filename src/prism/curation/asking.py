"""From what a recipe says of servers and money to the pool that a step asks and the ledger that keeps its books."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial

from prism.config.benchmarks import ServerSettings
from prism.config.curation import AskedServers, AskingRecipe, BudgetConfig
from prism.curation.budget import Account, Price
from prism.curation.fund import SharedFund
from prism.curation.ledger import Ledger
from prism.curation.store import Part, Store
from prism.rollout.openai_pool import ChatPool, Meter
from prism.rollout.openai_server import ChatServer

OpenMeter = Callable[[], AbstractAsyncContextManager[Meter]]


def chat_servers(config: AskedServers) -> list[ChatServer]:
    """Raises ConfigError for an address or a key that cannot be used."""
    settings = config.model_dump(include={*ServerSettings.model_fields, "max_attempts", "backoff_s"})
    first = ChatServer(**settings)
    servers = [first, *(replace(first, base_url=url) for url in config.other_base_urls)]
    for server in servers:
        server.api_key()  # missing, it is told before anything is read
    return servers


def open_meter(store: Store, part: Part, step: str, recipe: AskingRecipe) -> OpenMeter:
    """The ledger of the part's shards, which draws on the budget of all."""
    # Not a function of its own: a step travels to other processes, its meter unopened.
    return partial(_open_ledger, store, part.shards(store.num_shards), step, recipe.budget, recipe.ask_in_doubt)


def _open_ledger(store: Store, numbers: Iterable[int], step: str, budget: BudgetConfig, ask_in_doubt: bool) -> Ledger:
    directories = {number: store.shard_directory(number) for number in range(store.num_shards)}
    price = Price(budget.price.prompt, budget.price.completion)
    return Ledger(
        {number: directories[number] for number in numbers},
        store.shard_of,
        step=step,
        # By now it is registered, and whoever works on the store with it has the same settings.
        run=next((run.id for run in store.chain.current() if run.name == step), ""),
        account=Account(price, max_cost=budget.max_cost, max_tokens=budget.max_tokens),
        fund=SharedFund(store.directory, directories, step, budget.max_cost, budget.max_tokens),
        ask_in_doubt=ask_in_doubt,
    )


@asynccontextmanager
async def open_pool(servers: list[ChatServer], meter: OpenMeter) -> AsyncIterator[ChatPool]:
    """A pool with its books, both open as long as the context."""
    async with meter() as books, ChatPool(servers, books) as pool:
        yield pool


def num_rows_at_once(servers: list[ChatServer], requests_per_row: int) -> int:
    """Enough that every place at a server is taken while some rows wait for their last request."""
    concurrency = sum(server.concurrency for server in servers)
    return concurrency // requests_per_row + concurrency // 4 + 1
