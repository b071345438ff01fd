#!/usr/bin/env python3
"""Opens ledger files with a reader that is not ours and checks what the documentation promises about them.

    read_parquet.py FILE_OR_FOLDER...

For each file: cost_usd is decimal128(38, 18), event_time is timestamp[us, tz=UTC], the dimensions are dictionary-encoded
strings, in the Arrow schema and in the column chunks. Prints {"files", "rows", "unpriced", "total_cost_usd"} with the exact
sum; exit status 1 and one line for each broken promise.
"""

import decimal
import json
import sys
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

DIMENSIONS = (
    "environment", "org_id", "business_unit_id", "team_id", "project_id", "agent_role", "model_provider", "model_name",
)
TYPES = {"cost_usd": pa.decimal128(38, 18), "event_time": pa.timestamp("us", tz="UTC")}
DICTIONARY_ENCODINGS = {"RLE_DICTIONARY", "PLAIN_DICTIONARY"}
# A sum that would lose a digit ends the run.
CONTEXT = decimal.Context(prec=80, traps=[decimal.Inexact, decimal.InvalidOperation, decimal.Overflow])


def files_of(arguments):
    for argument in map(Path, arguments):
        if argument.is_dir():
            found = sorted(argument.rglob("*.parquet"))
            if not found:
                sys.exit(f"read_parquet: no *.parquet files below {argument}")
            yield from found
        else:
            yield argument


def is_string(kind):
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def broken_promises(parquet):
    schema = parquet.schema_arrow
    for name, expected in TYPES.items():
        found = schema.field(name).type if name in schema.names else "missing"
        if found != expected:
            yield f"{name} is {found}, expected {expected}"
    for name in DIMENSIONS:
        if name not in schema.names:
            yield f"{name} is missing, expected a dictionary of strings"
            continue
        kind = schema.field(name).type
        if not (pa.types.is_dictionary(kind) and is_string(kind.value_type)):
            yield f"{name} is {kind}, expected a dictionary of strings"
    metadata = parquet.metadata
    for group in (metadata.row_group(i) for i in range(metadata.num_row_groups)):
        for column in (group.column(i) for i in range(group.num_columns)):
            if column.path_in_schema in DIMENSIONS and not DICTIONARY_ENCODINGS & set(column.encodings):
                yield f"{column.path_in_schema} is stored as {', '.join(column.encodings)}, expected a dictionary page"


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__.strip())
        sys.exit(0 if len(sys.argv) > 1 else 2)
    files = rows = unpriced = 0
    total = Decimal(0)
    broken = []
    for path in files_of(sys.argv[1:]):
        files += 1
        try:
            # One file by itself: folder names are no columns here.
            with pq.ParquetFile(path) as parquet:
                promises = list(broken_promises(parquet))
                broken += [f"{path}: {promise}" for promise in promises]
                rows += parquet.metadata.num_rows
                if promises:
                    continue
                for batch in parquet.iter_batches(columns=["cost_usd"]):
                    for cost in batch.column(0).to_pylist():
                        if cost is None:
                            unpriced += 1
                        else:
                            total = CONTEXT.add(total, cost)
        except (OSError, pa.ArrowException) as error:
            broken.append(f"{path}: {error}")
    total = f"{total:f}".rstrip("0").rstrip(".") if total else "0"
    print(json.dumps({"files": files, "rows": rows, "unpriced": unpriced, "total_cost_usd": total}))
    for line in broken:
        print(f"read_parquet: {line}", file=sys.stderr)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
