"""Claims on waiting samples, so that of several analysis processes each sample is judged by one.

A claim ends with the verdict, when its process ends, or CLAIM_S after the process last renewed its claims, by the clock
of the database: the samples of a killed process are then judged by another. A process that was only slow stores no
second verdict.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, delete, exists, false, literal, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.database_clock import POSTGRES_NOW_S
from cloud.store.engine import CLAIM_S, Store
from cloud.store.schema import claims, samples


def is_free(claimant: str, number: ColumnElement[int]) -> tuple[ColumnElement[bool], ...]:
    """Return the condition that none but `claimant` has claimed the sample; none where no other process judges."""
    if not claimant:
        return ()
    by_others = (claims.c.number == number, claims.c.claimant != claimant, claims.c.until_s > POSTGRES_NOW_S)
    return (~exists().where(*by_others),)


async def take(store: Store, numbers: Sequence[int]) -> set[int]:
    """Claim these samples; return the numbers of those that this process may judge."""
    if not store.claimant or not numbers:
        return set(numbers)
    waiting = select(samples.c.number, literal(store.claimant), POSTGRES_NOW_S + CLAIM_S)
    waiting = waiting.where(samples.c.number.in_(numbers), samples.c.judged == false())
    # Rows that another process is claiming or judging at this moment are left out instead of waited for.
    waiting = waiting.with_for_update(of=samples, key_share=True, skip_locked=True)
    statement = postgresql.insert(claims).from_select(["number", "claimant", "until_s"], waiting)
    statement = statement.on_conflict_do_update(
        index_elements=[claims.c.number],
        set_={"claimant": statement.excluded.claimant, "until_s": statement.excluded.until_s},
        where=(claims.c.claimant == store.claimant) | (claims.c.until_s <= POSTGRES_NOW_S),
    )
    async with store.appending() as connection:
        return set((await connection.execute(statement.returning(claims.c.number))).scalars())


async def end(connection: AsyncConnection, store: Store, numbers: Collection[int]) -> set[int]:
    """End the claims on these samples in the transaction of their verdicts; return the numbers that still wait.

    A sample that was removed, or that another process has judged after a claim ran out, gets no verdict.
    """
    waiting = select(samples.c.number).where(samples.c.number.in_(numbers), samples.c.judged == false())
    # Samples are locked before claims, as in `take`: the other order would let two processes wait for each other.
    waiting = waiting.order_by(samples.c.number).with_for_update(key_share=True)
    found = set((await connection.execute(waiting)).scalars())
    if store.claimant:
        await connection.execute(delete(claims).where(claims.c.number.in_(numbers)))
    return found


async def release(store: Store) -> None:
    """End all claims of this process: other processes may judge its samples, and learn of it at once."""
    if store.claimant:
        async with store.writing() as connection:
            await connection.execute(delete(claims).where(claims.c.claimant == store.claimant))
