"""An index in PostgreSQL with pgvector: the exact edited score is one expression of SQL, beside any other tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from boresight.editing import CaptionEditor
from boresight.encoders import Encoder
from boresight.errors import ArtefactError, InputError, require_at_least
from boresight.sae import LatentNames
from boresight.search.answers import results
from boresight.search.engines import Block, EngineIndex, blocks_of, candidates_by, candidates_from, manifest_of
from boresight.search.index import SearchIndex
from boresight.search.query import PreparedQuery, Query
from boresight.search.results import Results

try:
    import psycopg
    from psycopg import sql

    from boresight.search.postgres_connection import MANIFESTS, checked_name, connected, place_of, require_pgvector
    from boresight.search.postgres_sql import SMALLEST, Part, score_sql, table_sql, where_sql
    from boresight.search.postgres_types import aligned, dense, fetched_oids, register, sparse
except ImportError as error:
    raise InputError("An index in PostgreSQL needs psycopg; pip install 'boresight[postgres]'.") from error

WIDEST = {"float32": ("vector", 16_000, 2_000), "float16": ("halfvec", 16_000, 4_000)}
"""dtype -> pgvector's type, the widest rows that it stores, and the widest that a graph holds."""


class PostgresIndex(EngineIndex):
    """The images of an index as rows of a table, found by the exact score of the editor or the cosine.

    Each operation opens a connection and is one transaction: others see a change whole or not at all. Columns of the
    index are columns of the table, beside `id`, `split` and `captions`; those whose names begin with `_` are ours.

    Attributes:
        url: of the database.
        table: its name, in the schema that the url's `search_path` puts first.

    Example:
        index = PostgresIndex.create("postgresql://me@db/photos", "photos", SearchIndex.open("photos.index"))
        index = PostgresIndex.open("postgresql://me@db/photos", "photos", editor=editor, encoder=encoder)
        print(index.search("a dog leaping over a hurdle", without="people", where="year > 2020"))

    Relations: `SearchIndex` is the same on disk, and faster on one machine. Its pictures are not copied.
    """

    def __init__(self, url: str, table: str, manifest: dict[str, Any], *belonging: Any) -> None:
        super().__init__(place_of(url, table), manifest, *belonging)
        self.url, self.table = url, table
        self._oids: dict[str, int] = {}

    @classmethod
    def create(cls, url: str, table: str, index: SearchIndex, *, encoder: Encoder | None = None) -> PostgresIndex:
        """Copy an index into a table, whole or not at all; the table of an index that is there is replaced.

        Args:
            url: of a database, such as 'postgresql://user@host/name'. pgvector is installed in it where it is missing.
            table: a word of letters, digits and `_`.
            index: its vectors, codes and columns are copied, of pictures nothing.
            encoder: for queries in words and pictures; left out, it is loaded by its name when it is needed.

        Raises:
            InputError: a name that no table has, columns or widths that PostgreSQL does not store.
            ArtefactError: the server is not reached or refuses, pgvector is missing or too old, or the table holds
                something else.
        """
        one = cls(url, checked_name(table), manifest_of(index), index.editor, index.names, encoder)
        one._require_fit()
        with one._session(bare=True) as connection:
            require_pgvector(connection, one.place, install=True)
        with one._session() as connection:
            connection.execute(
                sql.SQL("CREATE TABLE IF NOT EXISTS {} (name text PRIMARY KEY, manifest text NOT NULL)").format(_OF_ALL)
            )
            known = connection.execute(sql.SQL("DELETE FROM {} WHERE name = %s").format(_OF_ALL), [table]).rowcount
            if known:
                connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(one._name))
            elif connection.execute("SELECT to_regclass(quote_ident(%s))", [table]).fetchone()[0] is not None:
                raise ArtefactError(f"{one.place} holds something else; choose another name for the table.")
            connection.execute(table_sql(one._name, one.layout, one.schema))
            one._copy(connection, blocks_of(index))
            said = json.dumps(one.manifest)
            connection.execute(sql.SQL("INSERT INTO {} VALUES (%s, %s)").format(_OF_ALL), [table, said])
            connection.execute(sql.SQL("ANALYZE {}").format(one._name))
        return one

    @classmethod
    def open(
        cls,
        url: str,
        table: str,
        *,
        editor: CaptionEditor | None = None,
        names: LatentNames | None = None,
        encoder: Encoder | None = None,
    ) -> PostgresIndex:
        """An index that `create` made.

        Args:
            editor: that the copied index was made with; needed where there was one.
            names: of its latents, so that they can be switched by name.
            encoder: that made the embeddings; left out, it is loaded by its name when it is needed.

        Raises ArtefactError where the server is not reached, the table is no index, or editor or encoder are others.
        """
        place = place_of(url, table)
        with connected(url, place) as connection:
            require_pgvector(connection, place)
            try:
                query = sql.SQL("SELECT manifest FROM {} WHERE name = %s").format(_OF_ALL)
                found = connection.execute(query, [table]).fetchone()
            except psycopg.errors.UndefinedTable:
                found = None
        if found is None:
            raise ArtefactError(f"{place} is no boresight index; check the name, or make it with PostgresIndex.create.")
        return cls(url, table, json.loads(found[0]), editor, names, encoder)

    def __len__(self) -> int:
        with self._session() as connection:
            return connection.execute(sql.SQL("SELECT count(*) FROM {}").format(self._name)).fetchone()[0]

    def build_graph(self, m: int = 16, ef_construction: int = 64) -> None:
        """Index the embeddings by pgvector's HNSW, so that `candidates` are found without reading every row.

        Args:
            m: links of an image in the graph.
            ef_construction: how many images are kept in view while one is linked, at least twice `m`.

        Raises InputError for embeddings that are too wide for a graph, ArtefactError where the server refuses.
        """
        kind, _, widest = WIDEST[self.layout.dtype]
        if self.layout.width > widest:
            raise InputError(
                f"The embeddings are {self.layout.width:,} wide and a graph of {kind} holds {widest:,}; "
                "search without candidates, or with dtype='float16', which holds 4,000."
            )
        with self._session() as connection:
            connection.execute(
                sql.SQL(
                    "CREATE INDEX IF NOT EXISTS {} ON {} USING hnsw ({} {}) WITH (m = {}, ef_construction = {})"
                ).format(
                    self._graph, self._name, self._searched, sql.SQL(f"{kind}_ip_ops"), int(m), int(ef_construction)
                )
            )

    def search_batch(
        self, queries: Sequence[Query], *, ranks: bool = True, candidates: int | None = None
    ) -> list[Results]:
        """The answers to several queries, each found by one statement; all see the same state of the table.

        Args:
            ranks: whether the rank of each answer by the cosine is found too, which reads the table once more.
            candidates: score only so many images, those nearest to the dense part of the score, as the graph of
                `build_graph` finds them; left out, every image is scored. `Results.exact` says which it was.

        Raises InputError as `SearchIndex.search_batch` does, and for candidates without a graph.
        """
        if candidates is not None:
            require_at_least("candidates", candidates, 1)
        prepared = self._prepare(queries)
        with self._session(reading=True) as connection:
            if candidates is not None:
                self._require_graph(connection, candidates)
            return [self._answer(connection, one, ranks, candidates) for one in prepared]

    def _answer(self, connection: Any, prepared: PreparedQuery, ranks: bool, candidates: int | None) -> Results:
        query = prepared.query
        where = where_sql(query.where, self.schema)
        score, plain = score_sql(prepared.columns, self.layout), score_sql(prepared.plain_columns, self.layout)
        source, values = Part(self._name), where.values
        if candidates is not None:
            kind = WIDEST[self.layout.dtype][0]
            near = sql.SQL("(SELECT * FROM {} WHERE {} ORDER BY {} <#> %s LIMIT %s) AS near")
            vector = dense(candidates_by(prepared, self.layout, self.editor)[None], kind)[0]
            source = Part(near.format(self._name, where.text, self._searched), (*where.values, vector, candidates))
            where, values = Part(sql.SQL("TRUE")), ()
        statement = sql.SQL(
            "SELECT id, score FROM (SELECT id, _row, {} AS score FROM {} WHERE {}) AS scored "
            "WHERE score >= %s ORDER BY score DESC, _row LIMIT %s OFFSET %s"
        ).format(score.text, source.text, where.text)
        least = float("-inf") if query.min_score is None else query.min_score
        given = (*score.values, *source.values, *values, least, query.k, query.offset)
        found = connection.execute(statement, given).fetchall()
        where = where_sql(query.where, self.schema)
        counted = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(self._name, where.text)
        matches = connection.execute(counted, where.values).fetchone()[0]
        block, cosines = self._read(connection, [one for one, _ in found], plain)
        own = (np.arange(len(found)), np.array([one for _, one in found], dtype=np.float32))
        exact = candidates is None or candidates >= matches
        snapshot = block.snapshot(self.layout)
        answers = results([prepared], [own], snapshot, [None], self.editor, self.names, False, exact=exact)[0]
        items = answers.items
        if ranks and items:
            above = self._above(connection, plain, where, cosines)
            items = tuple(replace(one, plain_rank=1 + int(n)) for one, n in zip(items, above, strict=True))
        return replace(answers, items=items, matches=matches)

    def _above(self, connection: Any, plain: Part, where: Part, scores: np.ndarray) -> np.ndarray:
        """(n,) int64, how many rows that may be answers have more than each of n plain scores."""
        order = np.argsort(-scores, kind="stable")
        statement = sql.SQL(
            "SELECT width_bucket(-({}), %s::float8[]), count(*) FROM {} WHERE {} GROUP BY 1"
        ).format(plain.text, self._name, where.text)  # fmt: skip
        counts = np.zeros(len(scores) + 1, dtype=np.int64)
        given = (*plain.values, (-scores[order]).tolist(), *where.values)
        for bucket, count in connection.execute(statement, given).fetchall():
            counts[bucket] = count
        above = np.empty(len(scores), dtype=np.int64)
        above[order] = np.cumsum(counts)[:-1]
        return above

    def _read(self, connection: Any, ids: Sequence[str], plain: Part) -> tuple[Block, np.ndarray]:
        """Whole rows in the order asked for, and their plain scores (n,) float64 as every row's are computed."""
        import pyarrow as pa

        statement = sql.SQL("SELECT *, {} AS _cosine FROM {} WHERE id = ANY(%s)").format(plain.text, self._name)
        cursor = connection.cursor(binary=True, row_factory=psycopg.rows.dict_row)
        found = {record["id"]: record for record in cursor.execute(statement, (*plain.values, list(ids)))}
        records = [found[one] for one in ids]
        dtype, width = self.layout.dtype, self.layout.width
        matrices = {
            name: np.array([record[f"_{name}"] for record in records], dtype=dtype).reshape(-1, width)
            for name in self.layout.dense
        }
        matrices["norms"] = np.array([[record["_norm"]] for record in records], dtype=np.float32).reshape(-1, 1)
        if self.layout.biased:
            matrices["bias"] = np.array([[record["_bias"]] for record in records], dtype=np.float32).reshape(-1, 1)
        if self.layout.n_latents:
            codes = [[record[f"_{name}"] for record in records] for name in self.layout.values]
            matrices["indices"], amounts = aligned(codes)
            matrices |= dict(zip(self.layout.values, amounts, strict=True))
        columns = {name: pa.array([record[name] for record in records]) for name in self.schema.names}
        meta = pa.table([column.cast(self.schema.field(name).type) for name, column in columns.items()], self.schema)
        return Block(meta, matrices), np.array([record["_cosine"] for record in records])

    def _write(self, blocks: Iterator[Block], removed: Sequence[str]) -> None:
        with self._session() as connection:
            if removed:
                statement = sql.SQL("DELETE FROM {} WHERE id = ANY(%s)").format(self._name)
                connection.execute(statement, [list(removed)])
            self._copy(connection, blocks)

    def _copy(self, connection: Any, blocks: Iterator[Block]) -> None:
        kind = WIDEST[self.layout.dtype][0]
        own = [(f"_{name}", kind) for name in self.layout.dense]
        own += [(f"_{name}", "sparsevec") for name in self.layout.values]
        own += [("_norm", "float4"), *([("_bias", "float4")] if self.layout.biased else [])]
        names = [*self.schema.names, *(name for name, _ in own)]
        columns = sql.SQL(", ").join([sql.Identifier(name) for name in names])
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(self._name, columns)
        types = sql.SQL("SELECT {} FROM {} LIMIT 0").format(columns, self._name)
        oids = [column.type_code for column in connection.execute(types).description]
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(oids)
            for block in blocks:
                users = [_values(block.meta[name]) for name in self.schema.names]
                for row in zip(*users, *self._encoded(block, kind), strict=True):
                    copy.write_row(row)

    def _encoded(self, block: Block, kind: str) -> Iterator[list[Any]]:
        for name in self.layout.dense:
            rows = block.matrices[name]
            yield dense(np.where(np.abs(rows) < SMALLEST, 0, rows), kind)
        for name in self.layout.values:
            yield sparse(block.matrices["indices"], block.matrices[name], self.layout.n_latents)
        yield block.matrices["norms"][:, 0].tolist()
        if self.layout.biased:
            yield block.matrices["bias"][:, 0].tolist()

    def _present(self, ids: Sequence[str]) -> list[str]:
        with self._session(reading=True) as connection:
            statement = sql.SQL("SELECT id FROM {} WHERE id = ANY(%s)").format(self._name)
            return [one for (one,) in connection.execute(statement, [list(ids)])]

    def _vectors(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        with self._session(reading=True) as connection:
            statement = sql.SQL("SELECT id, _plain FROM {} WHERE id = ANY(%s)").format(self._name)
            return dict(connection.execute(statement, [list(ids)], binary=True).fetchall())

    @property
    def _name(self) -> Any:
        return sql.Identifier(self.table)

    @property
    def _searched(self) -> Any:
        return sql.Identifier(f"_{candidates_from(self.layout, self.editor)}")

    @property
    def _graph(self) -> Any:
        return sql.Identifier(f"{self.table}_graph")

    def _require_fit(self) -> None:
        kind, widest, _ = WIDEST[self.layout.dtype]
        if self.layout.width > widest:
            raise InputError(f"The embeddings are {self.layout.width:,} wide and a {kind} holds {widest:,}.")
        for name in self.schema.names:
            if name.startswith("_") or "\0" in name or len(name.encode()) > 63:
                raise InputError(
                    f"The column '{name}' cannot be one of the table: names there have 63 bytes at most and do not "
                    "begin with '_'; rename it."
                )

    def _require_graph(self, connection: Any, candidates: int) -> None:
        name = f"{self.table}_graph"
        if connection.execute("SELECT to_regclass(quote_ident(%s))", [name]).fetchone()[0] is None:
            raise InputError(f"{self.place} has no graph to find candidates by; call build_graph(), or leave them out.")
        settings = {"hnsw.ef_search": min(max(candidates, 40), 1000), "hnsw.iterative_scan": "strict_order"}
        for setting, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, true)", [setting, str(value)])

    @contextmanager
    def _session(self, *, reading: bool = False, bare: bool = False) -> Iterator[Any]:
        """One transaction. bare: before the types of pgvector are there."""
        with connected(self.url, self.place) as connection:
            if reading:
                connection.isolation_level, connection.read_only = psycopg.IsolationLevel.REPEATABLE_READ, True
            if not bare:
                self._oids = self._oids or fetched_oids(connection)
                register(connection, self._oids)
            yield connection


_OF_ALL = sql.Identifier(MANIFESTS)


def _values(column: Any) -> list[Any]:
    """What psycopg writes of a column."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pa.timestamp("us", column.type.tz))
    return column.to_pylist()
