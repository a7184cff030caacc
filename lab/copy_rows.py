#!/usr/bin/python3
"""Makes one Keystone database hold exactly the rows of another, when their engines differ (PostgreSQL and MariaDB).

FROM_URL and TO_URL (environment) are SQLAlchemy URLs; the schemas must carry the same migration revision. Rows that the
target's migration made (the root domain) are removed first, so nothing is there twice. Values keep their meaning: a
boolean stays one although MariaDB calls it a small integer, a datetime keeps its microseconds where the column can hold them.
Foreign keys are not checked while rows arrive: tables refer to themselves, and the source has checked them all.

Not copied: alembic_version (compared instead) and tables whose name starts with "holdfast_" (each database's own).
"""
import os
import sys

import sqlalchemy as sa

REVISION_TABLE = "alembic_version"
OWN_PREFIX = "holdfast_"
ROWS_PER_INSERT = 500
UNCHECKED = {"postgresql": "SET session_replication_role = replica", "mysql": "SET foreign_key_checks = 0"}


def reflect(connection):
    metadata = sa.MetaData()
    metadata.reflect(connection)
    return {name: table for name, table in metadata.tables.items() if not name.startswith(OWN_PREFIX)}


def fitting(value, column):
    return bool(value) if value is not None and isinstance(column.type, sa.Boolean) else value


def copy_table(source, target, source_table, target_table):
    names = [column.name for column in target_table.columns]
    if sorted(names) != sorted(column.name for column in source_table.columns):
        sys.exit(f"table {target_table.name} has other columns in the two databases")
    target.execute(target_table.delete())
    copied = 0
    result = source.execute(sa.select(*[source_table.c[name] for name in names]))
    while rows := result.fetchmany(ROWS_PER_INSERT):
        target.execute(target_table.insert(), [
            {name: fitting(value, target_table.c[name]) for name, value in zip(names, row)} for row in rows])
        copied += len(rows)
    held = target.scalar(sa.select(sa.func.count()).select_from(target_table))
    if held != copied:
        sys.exit(f"table {target_table.name} holds {held} rows instead of {copied}")
    return copied


def count_on(target, table):
    """PostgreSQL's sequences do not notice rows that bring their own number."""
    for column in table.primary_key.columns:
        sequence = target.scalar(sa.text("SELECT pg_get_serial_sequence(:table, :column)"),
                                 {"table": f'"{table.name}"', "column": column.name})
        if sequence is not None:
            most = target.scalar(sa.select(sa.func.max(column)))
            target.execute(sa.text("SELECT setval(:sequence, :next, false)"), {"sequence": sequence, "next": (most or 0) + 1})


def main():
    source_engine = sa.create_engine(os.environ["FROM_URL"], isolation_level="REPEATABLE READ")
    target_engine = sa.create_engine(os.environ["TO_URL"])
    with source_engine.connect() as source, target_engine.begin() as target:
        source_tables, target_tables = reflect(source), reflect(target)
        if source_tables.keys() != target_tables.keys():
            sys.exit(f"the databases differ in tables: {sorted(source_tables.keys() ^ target_tables.keys())}")
        revisions = [sorted(connection.execute(sa.select(tables[REVISION_TABLE])).scalars())
                     for connection, tables in ((source, source_tables), (target, target_tables))]
        if revisions[0] != revisions[1]:
            sys.exit(f"the databases carry different revisions: {revisions[0]} and {revisions[1]}")
        target.execute(sa.text(UNCHECKED[target_engine.dialect.name]))
        total = 0
        for name, table in sorted(target_tables.items()):
            if name == REVISION_TABLE:
                continue
            total += copy_table(source, target, source_tables[name], table)
            if target_engine.dialect.name == "postgresql":
                count_on(target, table)
        print(f"{total} rows in {len(target_tables) - 1} tables")


main()
